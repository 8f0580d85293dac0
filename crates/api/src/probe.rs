//! A call of our own, through everything that a client's call goes through.

use std::path::Path;
use std::time::Duration;

use berth_supervisor::Supervisor;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A new connection to the socket, one call over it, and a round trip through the supervisor's tasks, all within `timeout`. What
/// failed is told in one line.
pub async fn round_trip(address: &Path, supervisor: &Supervisor, timeout: Duration) -> Result<(), String> {
    let call = async {
        let endpoint = Endpoint::from_shared(format!("unix:{}", address.display())).map_err(|e| e.to_string())?;
        let channel = endpoint.connect().await.map_err(|e| format!("connect: {e}"))?;
        // Not Version: it runs every runtime's binary, and one that hangs must not look like a daemon that does.
        HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .map_err(|e| format!("call Health.Check: {e}"))?;
        supervisor.probe(timeout).await.map_err(|e| e.to_string())
    };
    tokio::time::timeout(timeout, call)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {timeout:?}")))
}
