# Debian's dockerd over berthd, with systemd as the driver of cgroups, as it is by default under systemd and cgroup v2.
. /berth/vm/lib.sh
mkdir -p /run/containerd /etc/docker
systemd-run -q --unit berthd-docker -p Delegate=yes -p KillMode=process -p TasksMax=infinity -p Restart=always -p RestartSec=1 \
    /berth/bin/berthd --address /run/containerd/containerd.sock
eventually 60 berth --address /run/containerd/containerd.sock ps -q || { journalctl -u berthd-docker -o cat | tail; exit 1; }
systemd-run -q --unit dockerd-test -p KillMode=process dockerd --containerd /run/containerd/containerd.sock --iptables=false --ip6tables=false --bridge=none \
    --storage-driver=vfs --live-restore
eventually 120 docker version || { journalctl -u dockerd-test -o cat | tail -n 20; exit 1; }
check "the driver by default" "systemd 2" "$(docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}')"
bundle /i .
tar -C /i/rootfs -c . | docker import - box >/dev/null
docker run -d --name one --network none -m 64m --pids-limit 50 --cpus 0.5 box sleep 10000 >/dev/null
check "run" 0 $?
pid=$(docker inspect -f '{{.State.Pid}}' one)
id=$(docker inspect -f '{{.Id}}' one)
scope=/sys/fs/cgroup/system.slice/docker-$id.scope
check "its cgroup" "0::/system.slice/docker-$id.scope" "$(cat /proc/"$pid"/cgroup)"
check "its limits, for systemd and in the files" "MemoryMax=67108864 TasksMax=50 67108864 50 50000 100000" \
    "$(systemctl show "docker-$id.scope" -p MemoryMax,TasksMax | sort | tr '\n' ' ')$(cat "$scope/memory.max" "$scope/pids.max" "$scope/cpu.max" | tr '\n' ' ' | sed 's/ $//')"
docker update -m 96m --memory-swap 96m one >/dev/null
check "update" "MemoryMax=100663296 100663296" "$(systemctl show "docker-$id.scope" -p MemoryMax) $(cat "$scope/memory.max")"
check "exec" "0::/" "$(docker exec one cat /proc/self/cgroup)"
docker pause one >/dev/null
check "pause" "1 paused" "$(cat "$scope/cgroup.freeze") $(docker inspect -f '{{.State.Status}}' one)"
docker unpause one >/dev/null
like "stats" "*96MiB*" "$(docker stats --no-stream --format '{{.MemUsage}}' one)"
systemctl kill -s KILL --kill-whom=main berthd-docker
eventually 60 docker exec one cat /proc/self/cgroup
check "the same process after berthd's death" "$pid" "$(docker inspect -f '{{.State.Pid}}' one)"
check "a container killed for its memory" "137 true" \
    "$(docker run --name oom --network none -m 16m --memory-swap 16m box sh -c 'x=0123456789abcdef; while :; do x=$x$x; done' >/dev/null 2>&1; echo $?) $(docker inspect -f '{{.State.OOMKilled}}' oom)"
docker rm -f one oom >/dev/null
eventually 10 sh -c "! test -d $scope"
check "nothing is left" "" "$(systemctl list-units --all 'docker-*.scope' --no-legend)$(ls -d "$scope" 2>/dev/null)"
verdict
