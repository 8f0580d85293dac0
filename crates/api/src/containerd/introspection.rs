//! What this daemon can do, as clients ask for it.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;

use berth_wire::containerd::services::introspection::v1::introspection_server as server;
use berth_wire::containerd::services::introspection::v1::*;
use berth_wire::containerd::types::Platform;
use tonic::{Request, Response, Status};

use super::Context;
use super::filter::Filter;
use super::store::{self, invalid};

pub struct Introspection(pub Context);

const RUNTIME: &str = "io.containerd.runtime.v2";

/// What there is, by the names that containerd gave it.
const PLUGINS: &[(&str, &str)] = &[
    ("io.containerd.content.v1", "content"),
    ("io.containerd.event.v1", "exchange"),
    ("io.containerd.gc.v1", "scheduler"),
    ("io.containerd.grpc.v1", "containers"),
    ("io.containerd.grpc.v1", "content"),
    ("io.containerd.grpc.v1", "events"),
    ("io.containerd.grpc.v1", "healthcheck"),
    ("io.containerd.grpc.v1", "images"),
    ("io.containerd.grpc.v1", "introspection"),
    ("io.containerd.grpc.v1", "leases"),
    ("io.containerd.grpc.v1", "namespaces"),
    ("io.containerd.grpc.v1", "tasks"),
    ("io.containerd.grpc.v1", "version"),
    ("io.containerd.metadata.v1", "bolt"),
    (RUNTIME, "task"),
];

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn plugin((kind, id): (&str, &str)) -> Plugin {
    let mut plugin = Plugin {
        r#type: kind.into(),
        id: id.into(),
        ..Default::default()
    };
    if kind == RUNTIME {
        plugin.platforms = vec![Platform {
            os: "linux".into(),
            architecture: architecture().into(),
            ..Default::default()
        }];
        let schemes = "fifo,binary,binary-v2,file".to_owned();
        plugin.exports = [("log-uri-schemes".to_owned(), schemes)].into();
    }
    plugin
}

#[tonic::async_trait]
impl server::Introspection for Introspection {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let filter = Filter::parse(&request.get_ref().filters).map_err(invalid)?;
        let fits = |plugin: &Plugin| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Some(Cow::Borrowed(match path.as_slice() {
                    ["type"] => plugin.r#type.as_str(),
                    ["id"] => &plugin.id,
                    _ => return None,
                }))
            })
        };
        Ok(Response::new(PluginsResponse {
            plugins: PLUGINS.iter().copied().map(plugin).filter(fits).collect(),
        }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let uuid = self.0.meta.call(|tables| tables.uuid()).await.map_err(store::status)?;
        Ok(Response::new(ServerResponse {
            uuid,
            pid: std::process::id().into(),
            pidns: std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino()),
            deprecations: Vec::new(),
        }))
    }
}
