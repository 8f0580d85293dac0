//! A call of our own, through everything that a client's call goes through.

use std::path::Path;
use std::time::Duration;

use berth_supervisor::Supervisor;
use berth_wire::v1::VersionRequest;
use berth_wire::v1::supervisor_client::SupervisorClient;
use tonic::transport::Endpoint;

/// A new connection to the socket, one call over it, and a round trip through the supervisor's tasks, all within `timeout`. What
/// failed is told in one line.
pub async fn round_trip(address: &Path, supervisor: &Supervisor, timeout: Duration) -> Result<(), String> {
    let call = async {
        let endpoint = Endpoint::from_shared(format!("unix:{}", address.display())).map_err(|e| e.to_string())?;
        let channel = endpoint.connect().await.map_err(|e| format!("connect: {e}"))?;
        SupervisorClient::new(channel)
            .version(VersionRequest {})
            .await
            .map_err(|e| format!("call Version: {e}"))?;
        supervisor.probe(timeout).await.map_err(|e| e.to_string())
    };
    tokio::time::timeout(timeout, call)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {timeout:?}")))
}
