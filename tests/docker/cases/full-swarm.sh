# Swarm: a service without published ports (they need IP_VS), scaled and updated.
docker swarm init --advertise-addr 127.0.0.1 >/dev/null
check "init" 0 $?
replicas() { [ "$(docker service ls --format '{{.Replicas}}')" = "$1" ] && [ "$(docker ps -q | wc -l)" = "${1%/*}" ]; }
docker service create -d --name s --replicas 10 --endpoint-mode dnsrr --no-resolve-image --network none bb sleep 1000 >/dev/null 2>&1 ||
    docker service create -d --name s --replicas 10 --endpoint-mode dnsrr --no-resolve-image bb sleep 1000 >/dev/null
eventually 60 replicas 10/10
check "10 replicas" 0 $?
docker service scale -d s=4 >/dev/null
eventually 60 replicas 4/4
check "scaled to 4" 0 $?
docker service update -d --no-resolve-image --env-add A=b --update-parallelism 4 --stop-grace-period 1s s >/dev/null
updated() { replicas 4/4 && [ "$(docker ps -q | xargs docker inspect -f '{{.Config.Env}}' | grep -c 'A=b')" = 4 ]; }
eventually 60 updated
check "updated" 0 $?
docker service rm s >/dev/null
eventually 60 sh -c '[ -z "$(docker ps -q)" ]'
check "removed" 0 $?
docker swarm leave --force >/dev/null
check "left" 0 $?
