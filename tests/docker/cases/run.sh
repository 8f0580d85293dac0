# docker run: output, input, exit codes, terminals.
basic_runs 0 1 2 42 125 126 127 128 137 255
check "stdout as another user" ok "$(run --rm -u 1000 bb sh -c 'echo ok >/dev/stdout')"
check "read-only with a tmpfs" ok "$(run --rm --read-only --tmpfs /tmp bb sh -c 'echo >/x; echo >/tmp/x && echo ok' 2>/dev/null)"
like "init" "*docker-init*" "$(run --rm --init bb ps)"
run --rm --privileged bb true
check "privileged" 0 $?
check "ulimit" 77 "$(run --rm --ulimit nofile=77 bb sh -c 'ulimit -n')"
check "hostname, env, workdir" "h b /tmp" "$(run --rm -h h -e A=b -w /tmp bb sh -c 'echo $(hostname) $A $(pwd)')"
check "no capabilities" 0000000000000000 "$(run --rm --cap-drop ALL bb sh -c "grep CapEff /proc/1/status | cut -f2")"
like "cgroup parent" "*/berth-test-$(basename "$WORK")/*" "$(run --rm --cgroup-parent "/berth-test-$(basename "$WORK")" bb cat /proc/self/cgroup)"
