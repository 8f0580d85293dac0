// Runs a bundle and shows what it wrote: run.js SOCKET BUNDLE PROTO. The client is made of supervisor.proto as it runs; see ../README.md.
const grpc = require("@grpc/grpc-js");
const [socket, bundle, proto] = process.argv.slice(2);
const { berth } = grpc.loadPackageDefinition(require("@grpc/proto-loader").loadSync(proto));
const daemon = new berth.v1.Supervisor(`unix:${socket}`, grpc.credentials.createInsecure());
const call = (method, request) =>
  new Promise((done, fail) => daemon[method](request, (error, answer) => (error ? fail(error) : done(answer))));
(async () => {
  await call("run", { container: { id: "node", bundle } });
  const { exit } = await call("wait", { id: "node" });
  for await (const { entries } of daemon.logs({ id: "node" })) entries.forEach((entry) => process.stdout.write(entry.data));
  await call("delete", { id: "node" });
  process.exitCode = exit.code;
})();
