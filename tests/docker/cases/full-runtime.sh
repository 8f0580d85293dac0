# --runtime and default-runtime: the embedded one, crun and runc, side by side.
kill "$dockerd"
wait "$dockerd" 2>/dev/null
start_dockerd --add-runtime "crun=$(command -v crun)" --add-runtime "real=$(command -v runc)" --default-runtime crun
# What berthd made the container with.
driver() {
    if [ "$ENGINE" = berth ]; then
        "$BIN/berth" --address "$WORK/c.sock" --json inspect -n moby "$(docker inspect -f '{{.Id}}' "$1")" | jq -r '.. | objects | .runtime // empty' | head -1
    else
        docker inspect -f '{{.HostConfig.Runtime}}' "$1"
    fi
}
for runtime in runc crun real; do
    run -d --name "by-$runtime" --runtime "$runtime" bb sleep 1000 >/dev/null
    check "$runtime: exec" hi "$(docker exec "by-$runtime" echo hi)"
    docker exec "by-$runtime" sh -c 'exit 3'
    check "$runtime: exec's exit code" 3 $?
    docker pause "by-$runtime" >/dev/null && docker unpause "by-$runtime" >/dev/null
    check "$runtime: pause" 0 $?
    docker update -m 64m --memory-swap 64m "by-$runtime" >/dev/null 2>&1
    check "$runtime: update" 0 $?
    docker stop -t 0 "by-$runtime" >/dev/null
    check "$runtime: stop" 137 "$(state "by-$runtime" '{{.State.ExitCode}}')"
    docker start "by-$runtime" >/dev/null
    check "$runtime: started again" true "$(state "by-$runtime" '{{.State.Running}}')"
    # This crun does not say why it fails, so that docker says 125 over stock containerd, too.
    if [ "$runtime" != crun ]; then
        run --runtime "$runtime" --rm bb no-such-command >/dev/null 2>&1
        check "$runtime: no such command" 127 $?
    fi
done
run -d --name default bb sleep 1000 >/dev/null
if [ "$ENGINE" = berth ]; then
    check "what they are" "embedded $(command -v crun) $(command -v runc) $(command -v crun)" \
        "$(driver by-runc) $(driver by-crun) $(driver by-real) $(driver default)"
fi
docker ps -aq | xargs docker rm -f >/dev/null
run --rm --runtime absent bb true >/dev/null 2>&1
check "one that is not there" 125 $?
kill "$dockerd"
wait "$dockerd" 2>/dev/null
start_dockerd
