"""Runs a bundle and shows what it wrote: run.py SOCKET BUNDLE. The modules are generated from supervisor.proto; see ../README.md."""
import sys

import grpc
from berth.v1 import supervisor_pb2 as api, supervisor_pb2_grpc

socket, bundle = sys.argv[1:]
daemon = supervisor_pb2_grpc.SupervisorStub(grpc.insecure_channel(f"unix:{socket}"))
daemon.Run(api.RunRequest(container=api.ContainerSpec(id="python", bundle=bundle)))
exit = daemon.Wait(api.WaitRequest(id="python")).exit
for answer in daemon.Logs(api.LogsRequest(id="python")):
    sys.stdout.write(b"".join(entry.data for entry in answer.entries).decode())
daemon.Delete(api.DeleteRequest(id="python"))
sys.exit(exit.code)
