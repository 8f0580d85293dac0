# Managed mode: dockerd starts its engine itself, as `containerd`, with a configuration of its own, and again when it dies.
if [ "$ENGINE" = berth ]; then
    mkdir -p "$WORK/managed"
    ln -sf "$BIN/berthd" "$WORK/managed/containerd"
    like "containerd --version" "containerd * 1.*" "$("$WORK/managed/containerd" --version)"
    like "containerd config dump" "*address = \"/x\"*" "$("$WORK/managed/containerd" -address /x config dump)"
fi
kill "$dockerd"
wait "$dockerd" 2>/dev/null
old_path=$PATH old_below=$below
PATH=$WORK/managed:$PATH below=
start_dockerd
check "run" hi "$(run --rm bb echo hi)"
run -d --name stays bb sleep 1000 >/dev/null
before=$(state stays '{{.State.Pid}}')
own=$(cat "$WORK/e/containerd/containerd.pid")
[ "$ENGINE" != berth ] || like "it is ours" "*/berthd" "$(readlink "/proc/$own/exe")"
kill -9 "$own"
started_again() { [ "$(cat "$WORK/e/containerd/containerd.pid")" != "$own" ] && docker exec stays true; }
eventually 30 started_again
check "it is started again" 0 $?
check "the container goes on" "$before" "$(state stays '{{.State.Pid}}')"
eventually 10 docker exec stays echo hi
check "exec" hi "$(docker exec stays echo hi)"
docker rm -f stays >/dev/null
kill "$dockerd"
wait "$dockerd" 2>/dev/null
eventually 10 sh -c "! kill -0 $(cat "$WORK/e/containerd/containerd.pid" 2>/dev/null || echo 999999999)"
PATH=$old_path below=$old_below
start_dockerd
