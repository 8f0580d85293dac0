# What docker run, attach and logs have besides, and dockerd's own word on its engine.
check "info" "1 vfs false" "$(docker run -d --network none --name one bb sleep 1000 >/dev/null; docker info -f '{{.ContainersRunning}} {{.Driver}} {{.LiveRestoreEnabled}}')"
like "info tells the engine's version" "*containerd version: ?*" "$(docker info 2>&1)"
check "no warning of the engine" "" "$(docker info 2>&1 | grep -i 'warning.*containerd')"
codes=$(seq 0 255 | xargs -P 6 -I@ sh -c 'docker run --network none --rm bb sh -c "exit @" </dev/null; [ $? = @ ] || echo wrong @')
check "every exit code" "" "$codes"
docker run --no-such-flag bb true >/dev/null 2>&1
check "an error of docker's own" 125 $?
run --rm --memory 1 bb true >/dev/null 2>&1
check "refused by dockerd" 125 $?
(sleep 1; printf 'echo a$((1 + 1))b\n'; sleep 1; printf '\020\021'; sleep 1) | script -qec "docker run --network none -it --name left bb sh" /dev/null >detach.txt 2>&1
like "a terminal's output" "*a2b*" "$(cat detach.txt)"
check "detached" running "$(state left '{{.State.Status}}')"
(sleep 1; printf 'exit 6\n'; sleep 1) | script -qec "docker attach left" /dev/null >/dev/null 2>&1
eventually 10 sh -c '[ "$(docker inspect -f "{{.State.Running}}" left)" = false ]'
check "attached again and ended" 6 "$(state left '{{.State.ExitCode}}')"
run -di --name in bb sh -c 'read line; echo "got $line"; exit 4' >/dev/null
# The output may come too late for the one attached, on stock containerd as well; it is kept.
echo this | docker attach in >/dev/null
check "attach without a terminal" "4 got this" "$? $(docker logs in)"
docker create --network none --name made -i bb cat >/dev/null
check "create" created "$(state made '{{.State.Status}}')"
check "start -ai" typed "$(echo typed | docker start -ai made)"
run -d --name since bb sh -c 'echo old; sleep 2; echo new; sleep 1000' >/dev/null
eventually 10 sh -c 'docker logs since | grep -q new'
middle=$(docker logs -t since | sed -n 2p | cut -d' ' -f1)
check "logs --since" new "$(docker logs --since "$middle" since)"
check "logs --until" old "$(docker logs --until "$(docker logs -t since | sed -n 1p | cut -d' ' -f1)" since)"
run -d --name deaf bb sh -c 'trap "" TERM; echo deaf; while :; do sleep 0.1; done' >/dev/null
eventually 5 sh -c 'docker logs deaf | grep -q deaf'
docker stop -t 1 deaf >/dev/null
check "stop of one that does not heed" 137 "$(state deaf '{{.State.ExitCode}}')"
run -d --name quits --stop-signal QUIT bb sh -c 'trap "exit 3" QUIT; echo up; while :; do sleep 0.1; done' >/dev/null
eventually 5 sh -c 'docker logs quits | grep -q up'
docker stop quits >/dev/null
check "--stop-signal" 3 "$(state quits '{{.State.ExitCode}}')"
run -d --name ill --health-cmd false --health-interval 1s --health-retries 2 bb sleep 1000 >/dev/null
eventually 15 sh -c '[ "$(docker inspect -f "{{.State.Health.Status}}" ill)" = unhealthy ]'
check "a failing healthcheck" unhealthy "$(state ill '{{.State.Health.Status}}')"
like "top with columns" "*sleep*" "$(docker top one -o pid,comm)"
limits() { docker exec "$1" sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d" " -f1 /sys/fs/cgroup/cpu.max' | tr '\n' ' '; }
run -d --name limited -m 64m --cpus 0.5 --cpuset-cpus 0 bb sleep 1000 >/dev/null
check "-m, --cpus" "67108864 50000 " "$(limits limited)"
check "--cpuset-cpus" 0 "$(docker exec limited sh -c 'grep Cpus_allowed_list /proc/self/status | cut -f2')"
docker update -m 128m --memory-swap -1 --cpus 1 limited >/dev/null 2>&1
check "update is seen inside" "134217728 100000 " "$(limits limited)"
like "stats tell the limit" "128MiB" "$(docker stats --no-stream --format '{{.MemUsage}}' limited | cut -d/ -f2 | tr -d ' ')"
privileged() { run --rm --privileged bb sh -c "$1"; }
check "--privileged has all capabilities" "$(grep CapBnd /proc/self/status | cut -f2)" "$(privileged 'grep CapEff /proc/self/status | cut -f2')"
check "--privileged may mount" yes "$(privileged 'mkdir -p /m && mount -t tmpfs t /m && echo yes')"
run --rm bb sh -c 'mkdir -p /m && mount -t tmpfs t /m' 2>/dev/null
check "others may not" 1 $?
check "--tmpfs with options" "noexec 64k" "$(run --rm --tmpfs /t:size=64k,noexec bb sh -c 'grep -o noexec /proc/mounts | sort -u | tail -1; grep " /t " /proc/mounts | grep -o "size=[0-9]*k" | cut -d= -f2' | tr '\n' ' ' | sed 's/ $//')"
check "--ipc container" 1 "$(run -d --name ipc --ipc shareable bb sh -c 'touch /dev/shm/f; sleep 1000' >/dev/null; eventually 5 docker exec ipc test -e /dev/shm/f; run --rm --ipc container:ipc bb sh -c 'ls /dev/shm | grep -c f')"
check "--uts host" "$(hostname)" "$(run --rm --uts host bb hostname)"
check "--oom-score-adj" 500 "$(run --rm --oom-score-adj 500 bb cat /proc/self/oom_score_adj)"
check "--group-add" 1000 "$(run --rm --group-add 1000 bb sh -c 'id -G | tr " " "\n" | grep 1000')"
# Policies outlive dockerd: those that were up come up again.
run -d --name up --restart unless-stopped bb sleep 1000 >/dev/null
run -d --name down --restart unless-stopped bb sleep 1000 >/dev/null
docker stop -t 0 down >/dev/null
kill "$dockerd"
wait "$dockerd" 2>/dev/null
start_dockerd
eventually 20 sh -c '[ "$(docker inspect -f "{{.State.Running}}" up)" = true ]'
check "--restart unless-stopped" "true false" "$(state up '{{.State.Running}}') $(state down '{{.State.Running}}')"
