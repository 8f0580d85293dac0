# overlay2, a real distribution from `docker import`, and both over a restart of everything.
again() { kill -9 "$dockerd"; wait "$dockerd" 2>/dev/null; rm -f "$WORK/d.pid"; }
kill "$dockerd"
wait "$dockerd" 2>/dev/null
storage="--storage-driver=overlay2 --data-root $WORK/overlay --live-restore"
start_dockerd
check "the driver" overlay2 "$(docker info -f '{{.Driver}}')"
# What there is of Debian in this root, documentation and docker left out.
tar -C / --one-file-system -c --exclude ./usr/share --exclude ./var --exclude ./usr/lib/go* --exclude './usr/*bin/docker*' --exclude './usr/bin/ct*' --exclude './usr/bin/cr*' --exclude './usr/bin/contain*' \
    --exclude ./usr/lib/x86_64-linux-gnu/perl* --exclude ./tmp --exclude ./run --exclude "./${WORK#/}" --exclude "./${BIN#/}" . | docker import - debian >/dev/null
check "a distribution" "$(. /etc/os-release; echo "$ID")" "$(run --rm debian sh -c '. /etc/os-release; echo $ID')"
check "bash" "3 2 1" "$(run --rm debian bash -c 'for i in {3..1}; do printf "%s " $i; done' | sed 's/ $//')"
run -d --name over debian sh -c 'echo kept >/kept; rm /etc/debian_version; exec sleep 1000' >/dev/null
eventually 5 docker exec over test -e /kept
check "diff" "A /kept D /etc/debian_version" "$(docker diff over | grep -E 'kept|debian_version' | sort | tr '\n' ' ' | sed 's/ $//')"
before=$(state over '{{.State.Pid}}')
again
kill -9 "$engine"
wait "$engine" 2>/dev/null
start_engine
start_dockerd
eventually 20 docker exec over true
check "the same process" "$before" "$(state over '{{.State.Pid}}')"
check "the same files" kept "$(docker exec over cat /kept)"
docker stop -t 0 over >/dev/null
docker start over >/dev/null
check "started again" kept "$(docker exec over cat /kept)"
docker commit over committed >/dev/null
check "commit" kept "$(run --rm committed cat /kept)"
docker rm -f over >/dev/null
check "no mount is left" 0 "$(grep -c "$WORK/overlay/overlay2/.*/merged" /proc/mounts)"
kill "$dockerd"
wait "$dockerd" 2>/dev/null
umount "$WORK/overlay/overlay2" 2>/dev/null
storage=$vfs
start_dockerd
