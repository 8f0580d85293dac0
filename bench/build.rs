//! Generates the client of the few containerd methods that the bench calls.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/containerd.proto", "proto/containerd_tasks.proto"];
    for proto in protos {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptor = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptor)?;
    Ok(())
}
