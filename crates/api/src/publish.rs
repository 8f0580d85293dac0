//! A client's call of containerd's `publish` command, which old shims run to tell an event.

use std::path::Path;

use berth_wire::containerd::services::events::v1::PublishRequest;
use berth_wire::containerd::services::events::v1::events_client::EventsClient;
use prost::Message;
use tonic::Request;
use tonic::transport::Endpoint;

/// Publishes `event`, an encoded `Any`, over the socket at `address`. What failed is told in one line.
pub async fn publish(address: &Path, namespace: &str, topic: &str, event: &[u8]) -> Result<(), String> {
    let event = prost_types::Any::decode(event).map_err(|e| format!("the event on standard input: {e}"))?;
    let endpoint = Endpoint::from_shared(format!("unix:{}", address.display())).map_err(|e| e.to_string())?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|e| format!("connect to {}: {e}", address.display()))?;
    let mut request = Request::new(PublishRequest {
        topic: topic.to_owned(),
        event: Some(event),
    });
    let namespace = namespace
        .parse()
        .map_err(|_| format!("namespace {namespace:?} is not text"))?;
    request.metadata_mut().insert("containerd-namespace", namespace);
    let published = EventsClient::new(channel).publish(request).await;
    published.map(drop).map_err(|status| status.message().to_owned())
}
