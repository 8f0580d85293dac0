# More of docker run's options, and what is seen of containers from outside.
run -d --name one bb sleep 1000 >/dev/null
check "--pid container:" 1 "$(run --rm --pid container:one bb sh -c "ps | grep -c '[s]leep 1000'")"
like "--pid host" "*dockerd*" "$(run --rm --pid host bb ps)"
check "--network container:" "$(docker exec one ip -o link | wc -l)" "$(docker run --rm --network container:one bb ip -o link | wc -l)"
check "--network host" "$(ip -o link | wc -l)" "$(docker run --rm --network host bb ip -o link | wc -l)"
docker volume create vol >/dev/null
run --rm -v vol:/v bb sh -c 'echo kept >/v/f'
check "volumes" kept "$(run --rm -v vol:/v:ro bb sh -c 'echo x 2>/dev/null >/v/f; cat /v/f')"
mkdir -p "$WORK/bound"
echo bound >"$WORK/bound/f"
check "bind mounts" bound "$(run --rm -v "$WORK/bound:/b" bb cat /b/f)"
check "--device" crw "$(run --rm --device /dev/fuse bb sh -c 'ls -l /dev/fuse | cut -c1-3')"
check "--sysctl" 1 "$(run --rm --sysctl net.ipv4.ip_forward=1 bb cat /proc/sys/net/ipv4/ip_forward)"
check "no new privileges" 1 "$(run --rm --security-opt no-new-privileges bb sh -c 'grep NoNewPrivs /proc/self/status | cut -f2')"
check "seccomp" 2 "$(run --rm bb sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
check "no seccomp" 0 "$(run --rm --security-opt seccomp=unconfined bb sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
check "--cap-add" 1 "$(run --rm --cap-drop ALL --cap-add CHOWN bb sh -c '[ $(grep CapEff /proc/1/status | cut -f2) = 0000000000000001 ] && echo 1')"
check "--shm-size" 1024 "$(run --rm --shm-size 1m bb sh -c "df -k /dev/shm | awk 'NR == 2 { print \$2 }'")"
check "--pids-limit" 50 "$(run --rm --pids-limit 50 bb sh -c 'cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null')"
check "100,000 lines of a terminal" 100000 "$(script -qec "docker run --network none -t --rm bb seq 100000" /dev/null </dev/null | wc -l)"
run --name lines bb seq 100000 >/dev/null
check "logs to the byte" "$(seq 100000 | md5sum)" "$(docker logs lines | md5sum)"
check "logs --tail" "99999 100000" "$(docker logs --tail 2 lines | tr '\n' ' ' | sed 's/ $//')"
run -d --name follow bb sh -c 'for i in 1 2 3 4 5; do echo $i; sleep 0.3; done' >/dev/null
check "logs -f" "1 2 3 4 5" "$(docker logs -f follow | tr '\n' ' ' | sed 's/ $//')"
docker rename follow renamed
check "rename" /renamed "$(state renamed '{{.Name}}')"
since=$(date +%s)
run --rm --name seen bb sh -c 'exit 3' >/dev/null
check "events" "create start die:3 destroy" "$(docker events --since "$since" --until "$(($(date +%s) + 1))" --filter container=seen \
    --format '{{.Action}}{{with index .Actor.Attributes "exitCode"}}:{{.}}{{end}}' | grep -E '^(create|start|die|destroy)' | tr '\n' ' ' | sed 's/ $//')"
run -d --name signal bb sh -c 'trap "exit 9" USR1; while :; do sleep 0.1; done' >/dev/null
sleep 0.5
docker kill -s USR1 signal >/dev/null
check "kill -s" 9 "$(docker wait signal)"
run -d --name always --restart always bb sh -c 'sleep 0.3; exit 1' >/dev/null
eventually 20 sh -c '[ "$(docker inspect -f "{{.RestartCount}}" always)" -ge 3 ]'
check "--restart always" 0 $?
docker rm -f always >/dev/null
docker container prune -f >/dev/null
docker volume rm vol >/dev/null
check "prune" "one" "$(docker ps -a --format '{{.Names}}')"
