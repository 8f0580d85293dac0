# userns-remap: containers' root is nobody outside.
printf 'root:x:0:0::/root:/bin/sh\nremap:x:5555:5555::/:/bin/false\n' >"$WORK/passwd"
printf 'root:x:0:\nremap:x:5555:\n' >"$WORK/group"
echo remap:200000:65536 >"$WORK/subid"
touch /etc/subuid /etc/subgid
mount --bind "$WORK/passwd" /etc/passwd && mount --bind "$WORK/group" /etc/group &&
    mount --bind "$WORK/subid" /etc/subuid && mount --bind "$WORK/subid" /etc/subgid
kill "$dockerd"
wait "$dockerd" 2>/dev/null
chmod 711 "$WORK"
start_dockerd --userns-remap=remap
tar -C root -c . | docker import - bb >/dev/null
run -d --name mapped bb sleep 1000 >/dev/null
check "root inside" 0 "$(docker exec mapped id -u)"
check "nobody outside" 200000 "$(stat -c %u "/proc/$(state mapped '{{.State.Pid}}')")"
check "stdout can be opened again" again "$(run --rm bb sh -c 'echo again >/dev/stdout')"
like "exec with a terminal" "*0" "$(script -qec "docker exec -it mapped id -u" /dev/null </dev/null | tr -d '\r')"
docker rm -f mapped >/dev/null
kill "$dockerd"
wait "$dockerd" 2>/dev/null
umount /etc/passwd /etc/group /etc/subuid /etc/subgid
start_dockerd
