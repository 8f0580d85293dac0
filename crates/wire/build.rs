//! Generates messages and stubs with protox: no protoc is needed to build. Our own descriptor is kept for reflection and for the
//! test that refuses breaking changes; containerd's API is not ours to change and is generated only where it is asked for.
use std::error::Error;
use std::path::{Path, PathBuf};

const OURS: &[&str] = &["proto/berth/v1/supervisor.proto", "proto/berth/shim/v1/shim.proto"];

const CONTAINERD: &[&str] = &[
    "proto/containerd/events/events.proto",
    "proto/containerd/metrics/v1.proto",
    "proto/containerd/metrics/v2.proto",
    "proto/containerd/runtime/options.proto",
    "proto/containerd/runtime/runc.proto",
    "proto/containerd/services/containers.proto",
    "proto/containerd/services/content.proto",
    "proto/containerd/services/events.proto",
    "proto/containerd/services/images.proto",
    "proto/containerd/services/introspection.proto",
    "proto/containerd/services/leases.proto",
    "proto/containerd/services/namespaces.proto",
    "proto/containerd/services/tasks.proto",
    "proto/containerd/services/ttrpc_events.proto",
    "proto/containerd/services/version.proto",
    "proto/containerd/types/task.proto",
    "proto/containerd/types/types.proto",
    "proto/google/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in OURS.iter().chain(CONTAINERD) {
        println!("cargo::rerun-if-changed={proto}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let descriptor = protox::compile(OURS, ["proto"])?;
    std::fs::write(out.join("berth.bin"), prost::Message::encode_to_vec(&descriptor))?;
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .compile_fds(descriptor)?;
    if std::env::var_os("CARGO_FEATURE_CONTAINERD").is_some() {
        containerd(&out.join("containerd"))?;
    }
    Ok(())
}

fn containerd(out: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let mut config = tonic_prost_build::Config::new();
    // Type URLs are made of them.
    config.enable_type_names();
    tonic_prost_build::configure()
        .out_dir(out)
        .include_file("mod.rs")
        // A method that is not there yet answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        .bytes(".")
        // In order, so that equal messages have equal bytes.
        .btree_map(".")
        .compile_fds_with_config(protox::compile(CONTAINERD, ["proto"])?, config)?;
    Ok(())
}
