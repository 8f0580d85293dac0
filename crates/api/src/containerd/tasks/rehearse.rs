//! A client's bytes on their way to a start, for the fuzz targets: they are understood or refused, and nothing is done.

use berth_core::ContainerKey;
use berth_supervisor::Config;
use berth_wire::containerd::services::containers::v1::container::Runtime;
use berth_wire::containerd::services::containers::v1::{Container, CreateContainerRequest};
use berth_wire::containerd::services::tasks::v1::{CreateTaskRequest, ExecProcessRequest};
use prost::Message;
use prost_types::Any;

use super::{exec_id, launch, stdio};

/// The first byte names the message that the others are: 0 = CreateContainer, 1 = CreateTask, else Exec.
pub fn request(bytes: &[u8]) {
    let Some((kind, message)) = bytes.split_first() else {
        return;
    };
    let config = Config::new("/s", "/r", "/shim");
    let start = |container: Container, task: CreateTaskRequest| {
        let Ok(key) = ContainerKey::parse("moby", &container.id) else {
            return;
        };
        let _ = launch::spec(key, container, task, &config);
    };
    match kind {
        0 => {
            let request = CreateContainerRequest::decode(message).unwrap_or_default();
            start(request.container.unwrap_or_default(), CreateTaskRequest::default());
        }
        1 => {
            let container = Container {
                id: "a".into(),
                runtime: Some(Runtime {
                    name: "io.containerd.runc.v2".into(),
                    options: None,
                }),
                spec: Some(Any {
                    type_url: String::new(),
                    value: b"{}".to_vec(),
                }),
                ..Container::default()
            };
            start(container, CreateTaskRequest::decode(message).unwrap_or_default());
        }
        _ => {
            let request = ExecProcessRequest::decode(message).unwrap_or_default();
            let _ = exec_id(&request.exec_id);
            let _ = launch::process(request.spec, request.terminal);
            if let Ok(parsed) = stdio::parse(&request.stdin, &request.stdout, &request.stderr, request.terminal) {
                let _ = stdio::paths(&parsed);
            }
        }
    }
}
