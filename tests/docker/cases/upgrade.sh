# An older dockerd ($OLD, a peers root) hands its running containers to this one: live-restore on one data root.
kill "$dockerd"
wait "$dockerd" 2>/dev/null
storage="--storage-driver=vfs --data-root $WORK/upgraded --live-restore"
upgraded() { [ "$(docker version --format '{{.Server.Version}}')" != "$old" ]; }
program=$dockerd_program dockerd_program=$WORK/old/dockerd
start_dockerd
image
old=$(docker version --format '{{.Server.Version}}')
run -d --name quiet bb sh -c 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done' >/dev/null
run -dit --name tty bb sh >/dev/null
run -d --name kept --restart always -m 64m -v data:/data bb sh -c 'echo kept >/data/f; sleep 1000' >/dev/null
run -d --name seven bb sh -c 'trap "exit 7" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
run -d --name checked --health-cmd 'test -e /tmp/ok' --health-interval 1s bb sleep 1000 >/dev/null
eventually 5 sh -c 'docker logs seven | grep -q up'
alive() { for name in quiet tty kept checked; do state $name '{{.State.Running}} {{.State.Pid}}'; done | tr '\n' ' '; }
before=$(alive)
like "they run" "true [1-9]* true [1-9]* true [1-9]* true [1-9]* " "$before"
pid=$(state seven '{{.State.Pid}}')
kill "$dockerd"
wait "$dockerd" 2>/dev/null
kill "$pid"
eventually 10 test ! -e "/proc/$pid"
kill -9 "$engine"
wait "$engine" 2>/dev/null
start_engine
dockerd_program=$program
start_dockerd
check "from $old to another" 0 "$(upgraded; echo $?)"
eventually 20 docker exec quiet true
check "the same processes" "$before" "$(alive)"
# Stock containerd tells 255.
check "one ended between the two" "7 exited" "$(state seven '{{.State.ExitCode}} {{.State.Status}}')"
check "exec" hi "$(docker exec quiet echo hi)"
last=$(docker logs --tail 1 quiet)
eventually 5 sh -c "[ \"\$(docker logs --tail 1 quiet)\" -gt $last ]"
check "the output goes on" 0 $?
check "no line is lost" "" "$(docker logs quiet 2>/dev/null | awk '$1 != NR { print; exit }')"
docker exec checked touch /tmp/ok
eventually 20 sh -c '[ "$(docker inspect -f "{{.State.Health.Status}}" checked)" = healthy ]'
check "the healthcheck goes on" healthy "$(state checked '{{.State.Health.Status}}')"
docker update -m 128m --memory-swap 128m kept >/dev/null 2>&1
check "update" 0 $?
(sleep 1; echo 'echo $((40 + 2)); exit 5'; sleep 2) | script -qec "docker attach tty" /dev/null >attach.txt 2>&1
like "attach to the terminal" "*42*" "$(cat attach.txt)"
eventually 10 sh -c '[ "$(docker inspect -f "{{.State.Running}}" tty)" = false ]'
check "the terminal's exit code" 5 "$(state tty '{{.State.ExitCode}}')"
first=$(state kept '{{.State.Pid}}')
kill -9 "$first"
eventually 20 sh -c "[ \"\$(docker inspect -f '{{.State.Running}} {{.State.Pid}}' kept | sed 's/true $first/no/;s/false.*/no/')\" != no ]"
check "the restart policy goes on" "true kept" "$(state kept '{{.State.Running}}') $(docker exec kept cat /data/f)"
docker stop -t 1 quiet >/dev/null
docker start quiet >/dev/null
check "stopped and started" true "$(state quiet '{{.State.Running}}')"
docker ps -aq | xargs docker rm -f >/dev/null
check "removed" "" "$(docker ps -aq)"
kill "$dockerd"
wait "$dockerd" 2>/dev/null
storage=$vfs
start_dockerd
