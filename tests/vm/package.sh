# The Debian package and the unit: installed, upgraded under a running container, killed, hung, stopped and removed; the container stays.
. /berth/vm/lib.sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
dpkg -i /berth/old.deb >/tmp/said 2>&1
check "install" 0 "$?"
[ $failed = 0 ] || cat /tmp/said
check "it runs" "active active" "$(systemctl is-active berthd.service berthd.socket | tr '\n' ' ' | sed 's/ $//')"
main() { systemctl show berthd -p MainPID --value; }
check "in a leaf of its own" "0::/system.slice/berthd.service/daemon" "$(cat /proc/"$(main)"/cgroup)"
check "man page, completion" "yes" "$([ -e /usr/share/bash-completion/completions/berth ] && echo yes)"
mkdir -p /home/user/data
bundle /b '.linux.cgroupsPath = "" | .process.args = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 1; done"]
    | .mounts += [{"destination": "/data", "type": "bind", "source": "/home/user/data", "options": ["rbind", "rw"]}]'
berth run -d --name c /b >/dev/null
check "run" 0 $?
pid=$(berth inspect c | jq '.[0].pid')
alive() { [ "$(cat "/proc/$pid/comm")" = sh ] && berth ps | grep -q ' c \|^c '; }
alive
check "it lives" 0 $?
group=$(cut -d: -f3 <"/proc/$pid/cgroup")
like "its cgroup is below the unit's" "/system.slice/berthd.service/*" "$group"
check "a container sees /home, and nothing of the unit's own limits" "yes $(ulimit -u)" \
    "$(grep -q ' /data ' "/proc/$pid/mountinfo" && echo yes) $(awk '/Max processes/ {print $3}' "/proc/$pid/limits")"
old=$(main)
dpkg -i /berth/new.deb >/tmp/said 2>&1
check "upgrade" 0 $?
check "another daemon" yes "$([ "$(main)" != "$old" ] && echo yes)"
eventually 30 alive
check "the container, after the upgrade" 0 $?
old=$(main)
systemctl restart berthd
check "restart" 0 $?
eventually 30 alive
check "the container, after a restart" 0 $?
systemctl kill -s KILL --kill-whom=main berthd
eventually 60 alive
check "the container, after SIGKILL of the daemon" 0 $?
mkdir -p /run/systemd/system/berthd.service.d
printf '[Service]\nWatchdogSec=10\nTimeoutAbortSec=2\n' >/run/systemd/system/berthd.service.d/quick.conf
systemctl daemon-reload
systemctl restart berthd
old=$(main)
kill -STOP "$old"
eventually 60 sh -c "! kill -0 $old"
check "the watchdog ends a daemon that hangs" 0 $?
eventually 60 alive
check "and the next one has the container" 0 $?
systemctl stop berthd.socket berthd.service
check "stop" "0 sh" "$? $(cat "/proc/$pid/comm")"
systemctl start berthd.socket
eventually 60 alive
check "a call through the socket starts it again" 0 $?
check "no line was lost" "" "$(berth logs c | awk '{n = $NF; if (NR > 1 && n != last + 1) print "after " last ": " n; last = n}')"
check "one more run under the new daemon" "hello" "$(bundle /e '.linux.cgroupsPath = "" | .process.args = ["/bin/busybox", "echo", "hello"]' && berth run --rm --name e /e)"
berth rm -f c >/dev/null
eventually 10 sh -c "! test -d /sys/fs/cgroup$group"
check "removed with its cgroup" 0 $?
dpkg -r berth >/tmp/said 2>&1
check "removal" 0 $?
check "nothing runs" "" "$(pgrep -l 'berthd|berth-shim')"
dpkg -P berth >/dev/null 2>&1
check "nothing is left" "" "$(ls -d /usr/bin/berth* /var/lib/berth /usr/lib/systemd/system/berthd* 2>/dev/null)"
verdict
