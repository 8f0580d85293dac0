# Live-restore: dockerd and the engine below it are killed and started again, in any order, under containers that run.
kill_dockerd() { kill -9 "$dockerd"; wait "$dockerd" 2>/dev/null; rm -f "$WORK/d.pid"; }
kill_engine() { kill -9 "$engine"; wait "$engine" 2>/dev/null; }
alive() { echo "$(state quiet '{{.State.Running}} {{.State.Pid}}') $(state tty '{{.State.Running}} {{.State.Pid}}')"; }
serves() { docker exec quiet true; }
kill_dockerd
start_dockerd --live-restore
run -d --name quiet bb sh -c 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done' >/dev/null
run -dit --name tty bb sh >/dev/null
before=$(alive)
like "both run" "true [1-9]* true [1-9]*" "$before"
# Not dockerd before the engine: an old one gives up on a socket that nobody answers on, a new one on its containers.
for order in dockerd engine both-engine-first; do
    case $order in
    dockerd)
        kill_dockerd
        start_dockerd --live-restore
        ;;
    engine)
        kill_engine
        start_engine
        ;;
    both-engine-first)
        kill_dockerd
        kill_engine
        start_engine
        start_dockerd --live-restore
        ;;
    esac
    eventually 20 serves
    check "$order: the same processes" "$before" "$(alive)"
    check "$order: exec" hi "$(docker exec quiet echo hi)"
    last=$(docker logs --tail 1 quiet)
    eventually 5 sh -c "[ \"\$(docker logs --tail 1 quiet)\" -gt $last ]"
    check "$order: the output goes on" 0 $?
done
check "no line is lost" "" "$(docker logs quiet 2>/dev/null | awk '$1 != NR { print; exit }')"
# Exits that dockerd does not see.
run -d --name seven bb sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done' >/dev/null
run -d --name eight bb sh -c 'trap "exit 8" TERM; while :; do sleep 0.1; done' >/dev/null
sleep 0.5
first=$(state seven '{{.State.Pid}}') second=$(state eight '{{.State.Pid}}')
kill_dockerd
kill "$first"
eventually 10 test ! -e "/proc/$first"
kill_engine
kill "$second"
eventually 10 test ! -e "/proc/$second"
start_engine
start_dockerd --live-restore
eventually 20 sh -c '[ "$(docker inspect -f "{{.State.Running}}" seven eight | sort -u)" = false ]'
check "exited while dockerd was away" "7 exited" "$(state seven '{{.State.ExitCode}} {{.State.Status}}')"
check "exited while both were away" "8 exited" "$(state eight '{{.State.ExitCode}} {{.State.Status}}')"
# The terminal still has both directions.
(sleep 1; echo 'echo $((40 + 2)); exit 5'; sleep 2) | script -qec "docker attach tty" /dev/null >attach.txt 2>&1
like "attach to the terminal" "*42*" "$(cat attach.txt)"
eventually 10 sh -c '[ "$(docker inspect -f "{{.State.Running}}" tty)" = false ]'
check "the terminal's exit code" 5 "$(state tty '{{.State.ExitCode}}')"
docker stop -t 1 quiet >/dev/null
check "stopped" false "$(state quiet '{{.State.Running}}')"
docker rm quiet tty seven eight >/dev/null
check "removed" "" "$(docker ps -aq)"
kill_dockerd
start_dockerd
