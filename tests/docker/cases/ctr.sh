# containerd's own client: tasks, containers, events, namespaces, leases, content, metrics, loggers. Nothing that needs snapshots.
# The name of the namespace is that of the cgroup, too. Its default specification has no PATH.
space=berth-test-$(basename "$WORK")
c() { ctr -a "$WORK/c.sock" -n "$space" "$@"; }
task() { c tasks ls 2>/dev/null | awk -v id="$1" '$1 == id { print $3 }'; }
c events >"$WORK/events.txt" 2>/dev/null &
listener=$!
# There is no word that a subscription stands: what it hears is.
heard() { c namespaces label "$space" heard=yes >/dev/null 2>&1; [ -s "$WORK/events.txt" ]; }
c namespaces create "$space" a=b >/dev/null 2>&1
like "namespaces" "*$space*a=b*" "$(c namespaces ls 2>/dev/null)"
eventually 10 heard
check "run --rootfs" hi "$(c run --rm --rootfs "$WORK/root" first /bin/echo hi </dev/null 2>/dev/null)"
c run --rm --rootfs "$WORK/root" second /bin/sh -c 'exit 7' </dev/null >/dev/null 2>&1
check "its exit code" 7 $?
c run -d --null-io --label k=v --rootfs "$WORK/root" long /bin/sleep 1000 >/dev/null 2>&1
check "run -d" RUNNING "$(task long)"
check "containers" long "$(c containers ls -q 2>/dev/null)"
check "containers by a label" long "$(c containers ls -q 'labels.k==v' 2>/dev/null)"
check "containers by another" "" "$(c containers ls -q 'labels.k==w' 2>/dev/null)"
like "containers info" '*"ID": "long"*' "$(c containers info long 2>/dev/null)"
c containers label long l=m >/dev/null 2>&1
like "containers label" '*"l": "m"*' "$(c containers info long 2>/dev/null)"
check "exec" out "$(c tasks exec --exec-id e1 long /bin/echo out </dev/null 2>/dev/null)"
c tasks exec --exec-id e2 long /bin/sh -c 'exit 5' </dev/null >/dev/null 2>&1
check "an exec's exit code" 5 $?
check "ps" "$(c tasks ls 2>/dev/null | awk '$1 == "long" { print $2 }')" "$(c tasks ps long 2>/dev/null | awk 'NR == 2 { print $1 }')"
like "metrics" "*long*memory.usage*" "$(c tasks metrics long 2>/dev/null | tr '\n' ' ')"
c tasks pause long >/dev/null 2>&1
check "pause" PAUSED "$(task long)"
c tasks resume long >/dev/null 2>&1
check "resume" RUNNING "$(task long)"
if [ "$ENGINE" = berth ]; then
    check "berth sees it" long "$("$BIN/berth" --address "$WORK/c.sock" ps -q -n "$space")"
fi
c tasks kill -s KILL long >/dev/null 2>&1
ended() { [ "$(task long)" = STOPPED ]; }
eventually 10 ended
check "kill" 0 $?
c tasks rm long >/dev/null 2>&1
# ctr's own code of the task's: 137, in some releases 0.
check "tasks rm" "" "$(task long)"
c containers rm long >/dev/null 2>&1
check "containers rm" "" "$(c containers ls -q 2>/dev/null)"
order() { grep -E "/(tasks|containers)/" "$WORK/events.txt" | grep -F long | sed -E 's/.* (\/[a-z]+\/[a-z-]+) .*/\1/' | tr '\n' ' '; }
complete() { case $(order) in *"/containers/delete "*) ;; *) false ;; esac; }
eventually 5 complete
check "events, in order" "/containers/create /tasks/create /tasks/start /containers/update /tasks/exec-added /tasks/exec-started /tasks/exit \
/tasks/exec-added /tasks/exec-started /tasks/exit /tasks/paused /tasks/resumed /tasks/exit /tasks/delete /containers/delete " "$(order)"
kill $listener
wait $listener 2>/dev/null
c leases create --id kept k=v >/dev/null 2>&1
check "leases" kept "$(c leases ls -q 2>/dev/null)"
c leases rm kept >/dev/null 2>&1
check "leases rm" "" "$(c leases ls -q 2>/dev/null)"
# Two tries: what no label holds may go at any time.
greeting() { printf hello | c content ingest greeting >/dev/null 2>&1; c content get $hello 2>/dev/null; }
hello=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
check "content" hello "$(greeting)"
c content label $hello containerd.io/gc.root=now >/dev/null 2>&1
like "content ls" "*$hello*containerd.io/gc.root=now*" "$(c content ls 2>/dev/null)"
c content rm $hello >/dev/null 2>&1
check "content rm" "" "$(c content ls -q 2>/dev/null)"
printf other | c content ingest --expected-digest $hello wrong >/dev/null 2>&1
check "content with a wrong digest" 1 $?

stopped() { [ "$(task logged)" = STOPPED ]; }
c run -d --log-uri "file://$WORK/logged.txt" --rootfs "$WORK/root" logged /bin/sh -c 'echo line' >/dev/null 2>&1
eventually 10 stopped
check "file:// logger" line "$(cat "$WORK/logged.txt")"
c tasks rm logged >/dev/null 2>&1
c containers rm logged >/dev/null 2>&1
c namespaces rm "$space" >/dev/null 2>&1
case $(c namespaces ls -q 2>/dev/null) in *$space*) check "namespaces rm" gone there ;; *) check "namespaces rm" gone gone ;; esac
