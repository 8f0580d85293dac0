//! Calls between daemon and shim, as bytes: which frame carries which message, and how a failure rides in a response.
//!
//! A request that opens a stream (Events, Attach) is answered by DATA frames on the request's stream id and ends with a RESPONSE.

use crate::shim::Failure;
use crate::ttrpc::{
    Any, FLAG_NO_DATA, FLAG_REMOTE_CLOSED, FLAG_REMOTE_OPEN, FrameError, Kind, Request, Response, Status,
    encode_message,
};
use bytes::Bytes;
use prost::Message;

/// The service's name in every request.
pub const SERVICE: &str = "berth.shim.v1.Shim";
/// Type of the detail in a failed response's status.
pub const FAILURE_URL: &str = "berth.shim.v1.Failure";

/// gRPC's code UNKNOWN: the real code is in the [`Failure`].
const UNKNOWN: i32 = 2;

/// The methods, as they are named on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Create,
    Start,
    Exec,
    Signal,
    Delete,
    Pause,
    Resume,
    Update,
    Resize,
    CloseStdin,
    State,
    Events,
    Ack,
    Attach,
    Shutdown,
}

impl Method {
    pub const ALL: [Self; 15] = [
        Self::Create,
        Self::Start,
        Self::Exec,
        Self::Signal,
        Self::Delete,
        Self::Pause,
        Self::Resume,
        Self::Update,
        Self::Resize,
        Self::CloseStdin,
        Self::State,
        Self::Events,
        Self::Ack,
        Self::Attach,
        Self::Shutdown,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Start => "Start",
            Self::Exec => "Exec",
            Self::Signal => "Signal",
            Self::Delete => "Delete",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Update => "Update",
            Self::Resize => "Resize",
            Self::CloseStdin => "CloseStdin",
            Self::State => "State",
            Self::Events => "Events",
            Self::Ack => "Ack",
            Self::Attach => "Attach",
            Self::Shutdown => "Shutdown",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Answered by a stream of DATA frames.
    #[must_use]
    pub const fn streams(self) -> bool {
        matches!(self, Self::Events | Self::Attach)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("call: unknown service `{0}`")]
    Service(String),
    #[error("call: unknown method `{0}`")]
    Method(String),
    #[error("call: the message of {what} can't be decoded")]
    Decode {
        what: &'static str,
        source: prost::DecodeError,
    },
}

/// A REQUEST frame. A stream that the client goes on with (Attach) is left open, any other is closed at once.
pub fn request(stream: u32, method: Method, message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let body = Request {
        service: SERVICE.into(),
        method: method.name().into(),
        payload: message.encode_to_vec().into(),
        ..Request::default()
    };
    let flags = if method == Method::Attach {
        FLAG_REMOTE_OPEN
    } else {
        FLAG_REMOTE_CLOSED
    };
    encode_message(stream, Kind::Request, flags, &body)
}

/// The body of a REQUEST frame: which method, and its message's bytes.
pub fn parse_request(body: Bytes) -> Result<(Method, Bytes), CallError> {
    let request = Request::decode(body).map_err(|source| CallError::Decode {
        what: "a request",
        source,
    })?;
    if request.service != SERVICE {
        return Err(CallError::Service(request.service));
    }
    let method = Method::from_name(&request.method).ok_or(CallError::Method(request.method))?;
    Ok((method, request.payload))
}

/// A RESPONSE frame of a call that went well.
pub fn response_ok(stream: u32, message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let body = Response {
        status: None,
        payload: message.encode_to_vec().into(),
    };
    encode_message(stream, Kind::Response, FLAG_REMOTE_CLOSED, &body)
}

/// A RESPONSE frame of a call that failed. Never fails itself: a message too long for a frame is cut.
#[must_use]
pub fn response_err(stream: u32, message: &str, failure: &Failure) -> Vec<u8> {
    let failed = |message: &str, failure: &Failure| {
        let detail = Any {
            type_url: FAILURE_URL.into(),
            value: failure.encode_to_vec().into(),
        };
        let status = Status {
            code: UNKNOWN,
            message: message.into(),
            details: vec![detail],
        };
        let body = Response {
            status: Some(status),
            payload: Bytes::new(),
        };
        encode_message(stream, Kind::Response, FLAG_REMOTE_CLOSED, &body)
    };
    failed(message, failure).unwrap_or_else(|_| {
        let short = Failure {
            runtime_message: cut(&failure.runtime_message).into(),
            ..failure.clone()
        };
        // Two strings of at most 64 KiB fit a frame of 4 MiB.
        failed(cut(message), &short).unwrap_or_default()
    })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(64 << 10)]
}

/// A DATA frame.
pub fn data(stream: u32, message: &impl Message) -> Result<Vec<u8>, FrameError> {
    encode_message(stream, Kind::Data, 0, message)
}

/// The DATA frame that ends the sender's side of a stream.
#[must_use]
pub fn data_end(stream: u32) -> Vec<u8> {
    // Empty, so it fits.
    encode_message(stream, Kind::Data, FLAG_REMOTE_CLOSED | FLAG_NO_DATA, &()).unwrap_or_default()
}

/// What a RESPONSE frame's body says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ok(Bytes),
    /// `failure` is a default one if the peer sent none.
    Failed {
        message: String,
        failure: Failure,
    },
}

/// The body of a RESPONSE frame.
pub fn parse_response(body: Bytes) -> Result<Outcome, CallError> {
    let response = Response::decode(body).map_err(|source| CallError::Decode {
        what: "a response",
        source,
    })?;
    let Some(status) = response.status.filter(|status| status.code != 0) else {
        return Ok(Outcome::Ok(response.payload));
    };
    let detail = status.details.into_iter().find(|detail| detail.type_url == FAILURE_URL);
    let failure = match detail {
        Some(detail) => Failure::decode(detail.value).map_err(|source| CallError::Decode {
            what: "a failure",
            source,
        })?,
        None => Failure::default(),
    };
    Ok(Outcome::Failed {
        message: status.message,
        failure,
    })
}

/// A message out of a payload or a DATA frame's body.
pub fn parse<M: Message + Default>(what: &'static str, payload: Bytes) -> Result<M, CallError> {
    M::decode(payload).map_err(|source| CallError::Decode { what, source })
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::shim::{SignalRequest, StateResponse};
    use crate::ttrpc::Decoder;
    use proptest::prelude::*;

    fn body(frame: &[u8]) -> Bytes {
        let mut decoder = Decoder::new();
        decoder.push(frame);
        decoder.pop().unwrap().unwrap().body
    }

    #[test]
    fn a_call_there_and_back() {
        let asked = SignalRequest {
            exec_id: "e".into(),
            signal: 15,
            all: true,
            request_id: "r".into(),
        };
        let (method, payload) = parse_request(body(&request(1, Method::Signal, &asked).unwrap())).unwrap();
        assert_eq!(
            (method, parse::<SignalRequest>("signal", payload).unwrap()),
            (Method::Signal, asked)
        );

        let said = StateResponse {
            oom_kills: 3,
            ..StateResponse::default()
        };
        let Outcome::Ok(payload) = parse_response(body(&response_ok(1, &said).unwrap())).unwrap() else {
            panic!("failed")
        };
        assert_eq!(parse::<StateResponse>("state", payload).unwrap(), said);
    }

    #[test]
    fn a_failure_keeps_its_code_and_the_runtimes_line() {
        let failure = Failure {
            code: 7,
            runtime_message: "exec: no such file".into(),
            exit_code: 127,
        };
        let outcome = parse_response(body(&response_err(1, "create c1", &failure))).unwrap();
        assert_eq!(
            outcome,
            Outcome::Failed {
                message: "create c1".into(),
                failure
            }
        );
    }

    #[test]
    fn a_failure_too_long_for_a_frame_is_cut() {
        let failure = Failure {
            code: 7,
            runtime_message: "é".repeat(5 << 20),
            exit_code: 1,
        };
        let Outcome::Failed { failure, .. } = parse_response(body(&response_err(1, "x", &failure))).unwrap() else {
            panic!("ok")
        };
        assert_eq!((failure.code, failure.runtime_message.len()), (7, 64 << 10));
    }

    #[test]
    fn names_are_told_apart() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.name()), Some(method));
        }
        assert_eq!(Method::from_name("create"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_cleanly(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = parse_request(bytes.clone());
            let _ = parse_response(bytes);
        }
    }
}
