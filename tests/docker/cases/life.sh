# A container's life: logs, stop, kill, restart, pause, update, wait, top, stats.
run -d --name life bb sh -c 'echo out; echo err >&2; trap "exit 7" TERM; while :; do sleep 0.1; done' >/dev/null
eventually 5 sh -c 'docker logs life 2>&1 | grep -q err'
check "logs of stdout" out "$(docker logs life 2>/dev/null)"
check "logs of stderr" err "$(docker logs life 2>&1 >/dev/null)"
like "top" "*sleep 0.1*" "$(docker top life)"
like "stats" "*life*iB / *" "$(docker stats --no-stream life)"
docker pause life >/dev/null
check "paused" paused "$(state life '{{.State.Status}}')"
docker unpause life >/dev/null
check "running again" running "$(state life '{{.State.Status}}')"
docker update -m 64m --memory-swap 64m life >/dev/null 2>&1
check "updated" "0 67108864" "$? $(state life '{{.HostConfig.Memory}}')"
docker stop life >/dev/null
check "stopped by its handler" 7 "$(state life '{{.State.ExitCode}}')"
docker start life >/dev/null
docker restart -t 5 life >/dev/null
check "restarted" running "$(state life '{{.State.Status}}')"
docker wait life >wait.txt &
docker kill life >/dev/null
wait $!
check "wait tells the code of a kill" 137 "$(cat wait.txt)"
docker rm life >/dev/null
run --name oom -m 20m --memory-swap 20m bb dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1
check "OOM" "137 true" "$? $(state oom '{{.State.OOMKilled}}')"
run -d --name again --restart on-failure:2 bb sh -c 'exit 3' >/dev/null
eventually 15 sh -c '[ "$(docker inspect -f "{{.RestartCount}} {{.State.Status}}" again)" = "2 exited" ]'
check "restart policy" "2 3 exited" "$(state again '{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}')"
run -d --name healthy --health-cmd true --health-interval 1s bb sleep 1000 >/dev/null
eventually 15 sh -c '[ "$(docker inspect -f "{{.State.Health.Status}}" healthy)" = healthy ]'
check "healthcheck" healthy "$(state healthy '{{.State.Health.Status}}')"
