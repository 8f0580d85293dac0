//! Generates messages and stubs with protox: no protoc is needed to build. The descriptor is kept for reflection and for the
//! test that refuses breaking changes.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/berth/v1/supervisor.proto", "proto/berth/shim/v1/shim.proto"];
    for proto in protos {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptor = protox::compile(protos, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("berth.bin"), prost::Message::encode_to_vec(&descriptor))?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .compile_fds(descriptor)?;
    Ok(())
}
