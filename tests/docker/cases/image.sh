# Images: pull and push through a registry on loopback, build with the classic builder, commit, save and load.
export DOCKER_BUILDKIT=0
mkdir -p "$WORK/registry" "$WORK/build"
printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:5000\n' \
    "$WORK/registry" >"$WORK/registry.yml"
docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
registry=$!
name=127.0.0.1:5000/bb
docker tag bb $name:one
eventually 20 docker push $name:one
check "push" 0 $?
printf 'FROM bb\nARG who=x\nENV WHO=$who\nCOPY file /file\nRUN echo built >>/file && chown 1000 /file\nWORKDIR /tmp\nUSER u\nENTRYPOINT ["cat"]\nCMD ["/file"]\n' \
    >"$WORK/build/Dockerfile"
echo copied >"$WORK/build/file"
docker build --network none --build-arg who=me -t $name:two "$WORK/build" >"$WORK/build.log" 2>&1
check "build" 0 $?
check "what it made" "copied built me 1000" "$(run --rm --entrypoint sh $name:two -c 'echo $(cat /file) $WHO $(stat -c %u /file)')"
docker push $name:two >/dev/null
check "push what was built" 0 $?
docker rmi $name:one $name:two >/dev/null
digest=$(docker pull $name:two 2>"$WORK/pull.err" | sed -n 's/^Digest: //p')
like "pull" "sha256:*" "$digest"
check "run what was pulled" "copied built" "$(run --rm $name:two | tr '\n' ' ' | sed 's/ $//')"
docker rmi $name:two >/dev/null
docker pull "$name@$digest" >/dev/null 2>&1
check "pull by digest" 0 $?
docker pull $name:absent >/dev/null 2>&1
check "pull what is not there" 1 $?
run --name changed bb sh -c 'echo new >/new' >/dev/null
check "diff" "A /new" "$(docker diff changed)"
docker commit changed committed >/dev/null
check "commit" new "$(run --rm committed cat /new)"
docker save -o "$WORK/saved.tar" committed
docker rmi -f committed >/dev/null
docker load -i "$WORK/saved.tar" >/dev/null
check "save and load" new "$(run --rm committed cat /new)"
docker cp changed:/new "$WORK/copied"
check "cp out of a container" new "$(cat "$WORK/copied")"
echo in >"$WORK/copied"
docker cp "$WORK/copied" changed:/tmp/in
docker cp changed:/tmp/in - >"$WORK/copied.tar"
check "cp into it and as a tar" in "$(tar -xOf "$WORK/copied.tar")"
docker export changed | tar -xO new >"$WORK/exported"
check "export" new "$(cat "$WORK/exported")"
docker system prune -f >/dev/null
check "prune" 0 $?
if [ "$ENGINE" = berth ]; then
    namespaces=$(ctr -a "$WORK/c.sock" namespaces ls -q 2>/dev/null | tr '\n' ' ')
    like "ctr sees the namespace" "*moby*" "$namespaces"
    check "no lease is left but those of images" "" "$(ctr -a "$WORK/c.sock" -n moby leases ls -q 2>/dev/null | grep -v '^moby-image-')"
    echo hello | ctr -a "$WORK/c.sock" -n test content ingest greeting 2>/dev/null
    hello=sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    check "ctr content" hello "$(ctr -a "$WORK/c.sock" -n test content get $hello 2>/dev/null)"
fi
kill $registry
wait $registry 2>/dev/null
docker ps -aq | xargs -r docker rm -f >/dev/null
