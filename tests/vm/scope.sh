# systemd as the manager of cgroups, held beside runc: properties and files after the start, after an update, after a reload of systemd;
# exec, pause, removal; what is refused; a bus that hangs and one that is not there.
. /berth/vm/lib.sh
scope=/sys/fs/cgroup/a.slice/a-b.slice/x-y.scope
properties=Slice,Delegate,MemoryMax,MemoryLow,MemoryHigh,MemorySwapMax,CPUWeight,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,TasksMax,AllowedCPUs,ActiveState,DefaultDependencies
limits() {
    systemctl show x-y.scope -p $properties
    for file in cpu.weight cpu.max memory.max memory.low memory.high memory.swap.max pids.max cpuset.cpus cgroup.freeze; do
        echo "$file=$(cat $scope/$file)"
    done
}
# Whole per cents of a CPU, for systemd rounds up to them, at a time of its own; and some swap, for runc does not tell systemd of none.
resources='{"cpu":{"shares":2048,"quota":51000,"period":100000,"cpus":"0"},"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},"pids":{"limit":33},"unified":{"memory.high":"50331648"}}'
update='{"memory":{"limit":33554432,"swap":50331648},"pids":{"limit":44},"cpu":{"quota":20000,"period":50000}}'
bundle /b ".linux.cgroupsPath = \"a-b.slice:x:y\" | .linux.resources = $resources"
cd /b || exit 1
for runtime in runc berth-oci; do
    $runtime --systemd-cgroup run -d y </dev/null >/tmp/said 2>&1
    check "$runtime run" "0 " "$? $(cat /tmp/said)"
    pid=$($runtime state y | jq .pid)
    check "$runtime: its cgroup" 0::/a.slice/a-b.slice/x-y.scope "$(cat /proc/"$pid"/cgroup)"
    {
        echo "run"; limits
        echo "$update" | $runtime update -r - y; echo "update $?"; limits
        systemctl daemon-reload; echo "reload"; limits
        $runtime exec y cat /proc/self/cgroup; echo "exec $?"
        $runtime pause y; echo "pause $? $($runtime state y | jq -r .status) $(cat $scope/cgroup.freeze)"
        $runtime resume y; echo "resume $? $(cat $scope/cgroup.freeze)"
        $runtime events --stats y | jq -c '[.data.memory.usage.limit, .data.pids.limit, (.data.memory.usage.usage > 0)]'
        $runtime delete -f y; echo "delete $?"
    } >/tmp/of.$runtime 2>&1
    eventually 10 sh -c "! test -d $scope"
    check "$runtime: the scope is gone" "" "$(ls -d $scope 2>/dev/null)$(systemctl list-units --all 'x-y*' --no-legend)"
done
check "as runc, line by line ($(grep -c . /tmp/of.runc) lines)" "" "$(diff /tmp/of.runc /tmp/of.berth-oci)"
bundle /o '.linux.cgroupsPath = ":x:oom" | .linux.resources = {"memory": {"limit": 16777216, "swap": 16777216}} | .process.args = ["/bin/sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"]'
for runtime in runc berth-oci; do
    (cd /o && $runtime --systemd-cgroup run oom </dev/null >/dev/null 2>&1; echo $? >/tmp/oom.$runtime)
    check "$runtime: killed for its memory, in the default slice" 137 "$(cat /tmp/oom.$runtime)"
    $runtime delete -f oom >/dev/null 2>&1
    check "$runtime: nothing failed stays" "" "$(systemctl list-units --all 'x-oom*' --no-legend)"
done
bundle /w '.linux.cgroupsPath = "/a/b"'
like "another form of path is refused" "*slice:prefix:name*" "$(cd /w && berth-oci --systemd-cgroup run -d w 2>&1 </dev/null)"
bundle /w '.linux.cgroupsPath = ":x:w" | .annotations = {"org.systemd.property.TimeoutStopUSec": "5"}'
like "properties in annotations are refused" "*org.systemd.property.TimeoutStopUSec*" "$(cd /w && berth-oci --systemd-cgroup run -d w 2>&1 </dev/null)"
bundle /w '.linux.cgroupsPath = ":x:w"'
bus=$(systemctl show dbus -p MainPID --value)
kill -STOP "$bus"
began=$(date +%s)
like "a bus that hangs is one error" "*D-Bus*" "$(cd /w && berth-oci --systemd-cgroup run -d w 2>&1 </dev/null)"
took=$(($(date +%s) - began))
check "within the deadline ($took s)" yes "$([ $took -le 40 ] && echo yes)"
kill -CONT "$bus"
mv /run/dbus/system_bus_socket /run/dbus/away
like "no bus is one error" "*D-Bus at /run/dbus/system_bus_socket: No such file*" "$(cd /w && berth-oci --systemd-cgroup run -d w 2>&1 </dev/null)"
mv /run/dbus/away /run/dbus/system_bus_socket
check "nothing of them is left" "" "$(berth-oci list -q)$(systemctl list-units --all 'x-*' --no-legend)"
(cd /w && berth-oci --systemd-cgroup run -d w </dev/null)
check "and then it goes" "0::/system.slice/x-w.scope" "$(cat /proc/"$(berth-oci state w | jq .pid)"/cgroup)"
berth-oci delete -f w
verdict
