//! The second socket: shims of others push their events there over ttrpc.
//!
//! Invariants: a peer that sends what is no frame loses its connection and nobody else's; requests of one connection are answered in
//! order, so events keep theirs.

use berth_wire::containerd::services::events::ttrpc::v1::ForwardRequest;
use berth_wire::ttrpc::{Decoder, FLAG_REMOTE_CLOSED, Frame, Kind, Request, Response, Status, encode_message};
use prost::Message;
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tonic::Code;

use super::Context;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Connections at once: one a shim.
const CONNECTIONS: usize = 16_384;

/// How long accepting rests when the process is out of descriptors.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Serves until the daemon ends.
pub async fn serve(listener: UnixListener, context: Context) {
    let serving = async {
        let free = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        // It is never closed.
        while let Ok(permit) = free.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let context = context.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = connection(stream, &context) => {}
                            () = context.ending.begun() => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a shim's connection can't be accepted; trying again");
                    // A descriptor that gets free tells nobody.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = context.ending.begun() => {}
    }
}

async fn connection(mut stream: UnixStream, context: &Context) {
    let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 16 << 10]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.push(&buffer[..n]),
        }
        loop {
            let frame = match decoder.pop() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a peer of the events' socket is cut off");
                    return;
                }
            };
            if frame.kind != Kind::Request {
                continue;
            }
            let stream_id = frame.stream;
            let response = answer(frame, context);
            let Ok(bytes) = encode_message(stream_id, Kind::Response, FLAG_REMOTE_CLOSED, &response) else {
                return;
            };
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }
}

fn answer(frame: Frame, context: &Context) -> Response {
    let status = match forward(frame.body, context) {
        Ok(()) => None,
        Err((code, message)) => Some(Status {
            code: code as i32,
            message,
            details: Vec::new(),
        }),
    };
    Response {
        status,
        payload: Bytes::new(),
    }
}

fn forward(body: Bytes, context: &Context) -> Result<(), (Code, String)> {
    let invalid = |error: prost::DecodeError| (Code::InvalidArgument, error.to_string());
    let request = Request::decode(body).map_err(invalid)?;
    if (request.service.as_str(), request.method.as_str()) != (SERVICE, "Forward") {
        let message = format!("/{}/{}: not implemented", request.service, request.method);
        return Err((Code::Unimplemented, message));
    }
    let envelope = ForwardRequest::decode(request.payload).map_err(invalid)?.envelope;
    let envelope = envelope.ok_or_else(|| (Code::InvalidArgument, "an envelope is needed: invalid argument".into()))?;
    context
        .events
        .forward(envelope)
        .map_err(|status| (status.code(), status.message().to_owned()))
}
