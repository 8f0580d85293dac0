//! Processes of containers: tasks and their execs.

use berth_wire::containerd::services::tasks::v1::tasks_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Tasks(pub Context);

#[tonic::async_trait]
impl server::Tasks for Tasks {}
