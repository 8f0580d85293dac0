# berth-oci in runc's place: what Docker does with a runtime by its command line, on either engine.
kill "$dockerd"
wait "$dockerd" 2>/dev/null
start_dockerd --add-runtime "oci=$BIN/berth-oci" --default-runtime oci
basic_runs 0 1 42 126 127 255
run -d --name by-oci -m 64m --memory-swap 64m bb sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done' >/dev/null
check "exec" hi "$(docker exec by-oci echo hi)"
docker exec by-oci sh -c 'exit 9'
check "exec's exit code" 9 $?
like "exec with a terminal" "*/dev/pts/*" "$(script -qec "docker exec -it by-oci tty" /dev/null </dev/null)"
docker exec by-oci no-such-command >/dev/null 2>&1
code=$?
[ "$(docker version --format '{{.Server.Version}}' | cut -d. -f1)" -ge 28 ] && wanted=127 || wanted=126
check "exec of what is not there" $wanted $code
check "exec with user, workdir, environment" "1000 /tmp b" "$(docker exec -u 1000 -w /tmp -e A=b by-oci sh -c 'echo $(id -u) $(pwd) $A')"
check "10 execs at once" "$(seq 10 | tr '\n' ' ')" "$(for i in $(seq 10); do docker exec by-oci echo "$i" & done | sort -n | tr '\n' ' ')"
like "top" "*sleep 0.1*" "$(docker top by-oci)"
like "stats" "*iB/64MiB" "$(docker stats --no-stream --format '{{.MemUsage}}' by-oci | tr -d ' ')"
docker pause by-oci >/dev/null
check "paused" paused "$(state by-oci '{{.State.Status}}')"
docker unpause by-oci >/dev/null
docker update -m 128m --memory-swap 128m --cpus 1 by-oci >/dev/null 2>&1
check "update" "0 134217728" "$? $(docker exec by-oci sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')"
docker stop by-oci >/dev/null
check "stop" 7 "$(state by-oci '{{.State.ExitCode}}')"
docker start by-oci >/dev/null
docker kill by-oci >/dev/null
check "kill" 137 "$(state by-oci '{{.State.ExitCode}}')"
run --name oom -m 20m --memory-swap 20m bb dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1
check "OOM" "137 true" "$? $(state oom '{{.State.OOMKilled}}')"
check "seccomp, capabilities, limits" "2 0000000000000000 77" "$(run --rm --cap-drop ALL --ulimit nofile=77 bb sh -c 'echo $(grep Seccomp: /proc/self/status | cut -f2) $(grep CapEff /proc/self/status | cut -f2) $(ulimit -n)')"
check "read-only with a tmpfs" ok "$(run --rm --read-only --tmpfs /tmp bb sh -c 'echo >/x; echo >/tmp/x && echo ok' 2>/dev/null)"
run --rm --privileged bb true
check "privileged" 0 $?
docker ps -aq | xargs docker rm -f >/dev/null
kill "$dockerd"
wait "$dockerd" 2>/dev/null
start_dockerd
