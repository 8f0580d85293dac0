# Loggers of containerd's: a program with the streams at 3 and 4 that says by closing 5 that it is ready.
space=berth-test-$(basename "$WORK")
c() { ctr -a "$WORK/c.sock" -n "$space" "$@"; }
task() { c tasks ls 2>/dev/null | awk -v id="$1" '$1 == id { print $3 }'; }
cat >"$WORK/logger" <<'LOGGER'
#!/bin/sh
folder=$(dirname "$0")
tr '\0' '\n' </proc/$$/environ | sort >"$folder/logger.env"
echo "$*" >"$folder/logger.args"
exec 5>&-
cat <&4 >"$folder/logger.err" &
cat <&3 >"$folder/logger.out"
wait
LOGGER
chmod +x "$WORK/logger"
c run -d --log-uri "binary://$WORK/logger?id=1&x=a%3Db" --rootfs "$WORK/root" logged /bin/sh -c '/bin/seq 10000; echo err >&2' >/dev/null 2>err.txt
check "binary:// logger" "" "$(cat err.txt)"
stopped() { [ "$(task logged)" = STOPPED ]; }
eventually 10 stopped
c tasks rm logged >/dev/null 2>&1
written() { [ "$(cat "$WORK/logger.err")" = err ] && [ "$(wc -l <"$WORK/logger.out")" = 10000 ]; }
eventually 5 written
check "binary:// logger, stdout" "$(seq 10000 | md5sum)" "$(md5sum <"$WORK/logger.out")"
check "its stderr" err "$(cat "$WORK/logger.err")"
check "its environment" "CONTAINER_ID=logged CONTAINER_NAMESPACE=$space" "$(tr '\n' ' ' <"$WORK/logger.env" | sed 's/ $//')"
check "its arguments" "id 1 x a=b" "$(cat "$WORK/logger.args")"
c containers rm logged >/dev/null 2>&1
c run -d --log-uri binary:///no/such/logger --rootfs "$WORK/root" logged /bin/true >/dev/null 2>&1
check "a logger that is not there" 1 $?
c containers rm logged >/dev/null 2>&1
