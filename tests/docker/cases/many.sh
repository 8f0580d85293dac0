# Many containers at once, and what others see of them.
for _ in $(seq 30); do run -d bb sleep 1000 >/dev/null & done
wait $(jobs -p | grep -vx -e "$engine" -e "$dockerd")
check "30 at once" 30 "$(docker ps -q | wc -l)"
if [ "$ENGINE" = berth ]; then
    check "berth sees them" 30 "$("$BIN/berth" --address "$WORK/c.sock" ps -q -n moby | wc -l)"
fi
docker ps -q | xargs docker stop -t 0 >/dev/null
check "all stopped" 0 "$(docker ps -q | wc -l)"
