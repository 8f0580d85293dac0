# docker exec in all its forms.
run -d --name ex bb sleep 1000 >/dev/null
check "output" hi "$(docker exec ex echo hi)"
check "input" abc "$(echo abc | docker exec -i ex cat)"
docker exec ex sh -c 'exit 7'
check "exit code" 7 $?
docker exec ex no-such-command >/dev/null 2>&1
code=$?
# Docker 26 and older say 126 here, whatever is below them.
[ "$(docker version --format '{{.Server.Version}}' | cut -d. -f1)" -ge 28 ] && wanted=127 || wanted=126
check "no such command" $wanted $code
docker exec ex /tmp >/dev/null 2>&1
check "a folder as command" 126 $?
check "user, workdir, environment" "1000 /tmp b" "$(docker exec -u 1000 -w /tmp -e A=b ex sh -c 'echo $(id -u) $(pwd) $A')"
docker exec -d ex sh -c 'echo detached >/tmp/f'
eventually 5 docker exec ex test -s /tmp/f
check "detached" detached "$(docker exec ex cat /tmp/f)"
like "a terminal" "*/dev/pts/*" "$(script -qec "docker exec -it ex tty" /dev/null </dev/null)"
check "20 at once" "$(seq 20 | tr '\n' ' ')" "$(for i in $(seq 20); do docker exec ex echo "$i" & done | sort -n | tr '\n' ' ')"
docker pause ex >/dev/null
docker exec ex true >/dev/null 2>&1
check "not while it is paused" 1 $?
docker unpause ex >/dev/null
docker exec ex sleep 100 &
sleeper=$!
eventually 5 sh -c 'docker top ex | grep -q "sleep 100$"'
docker kill ex >/dev/null
wait $sleeper
check "ends with the container" 137 $?
