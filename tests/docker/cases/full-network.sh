# Networks: the bridge with NAT and published ports, a network of one's own with DNS.
again() { kill "$dockerd"; wait "$dockerd" 2>/dev/null; }
again
old_net=$net net=
start_dockerd
like "the bridge" "*172.17.*" "$(docker run --rm bb ip -o -4 addr show eth0)"
docker run -d --name web -p 127.0.0.1:8080:80 bb httpd -f -p 80 -h /etc >/dev/null
check "a published port" root "$(eventually 10 "$WORK/busybox" wget -qO /dev/null http://127.0.0.1:8080/passwd; "$WORK/busybox" wget -qO - http://127.0.0.1:8080/passwd | head -1 | cut -d: -f1)"
check "another's network" root "$(docker run --rm --network container:web bb wget -qO - http://127.0.0.1/passwd | head -1 | cut -d: -f1)"
docker network create own >/dev/null
docker run -d --name named --network own bb httpd -f -p 80 -h /etc >/dev/null
check "names" root "$(docker run --rm --network own bb wget -qO - http://named/passwd | head -1 | cut -d: -f1)"
docker network connect own web
check "a second network" root "$(docker run --rm --network own bb wget -qO - http://web/passwd | head -1 | cut -d: -f1)"
docker rm -f web named >/dev/null
docker network rm own >/dev/null
check "the network goes" 0 $?
again
net=$old_net
start_dockerd
