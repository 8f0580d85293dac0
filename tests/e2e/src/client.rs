//! The typed client, and what a failed call says.
use berth_wire::v1::supervisor_client::SupervisorClient;
use berth_wire::v1::{ErrorCode, ErrorDetail};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::path::{Path, PathBuf};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub type Client = SupervisorClient<Channel>;

/// One HTTP/2 connection, made at the first call and made again after it broke.
pub fn channel(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    Endpoint::from_static("http://berth").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    }))
}

pub fn client(socket: &Path) -> Client {
    SupervisorClient::new(channel(socket))
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(16 << 20)
}

/// What rides in `berth-error-bin`.
pub fn detail(status: &Status) -> ErrorDetail {
    let value = status
        .metadata()
        .get_bin("berth-error-bin")
        .unwrap_or_else(|| panic!("no berth-error-bin: {status:?}"));
    ErrorDetail::decode(value.to_bytes().expect("base64")).expect("an ErrorDetail")
}

/// Asserts the code of a failure and that its one line holds every one of `says`. Gives the detail for more.
#[track_caller]
pub fn assert_fails<T: std::fmt::Debug>(result: Result<T, Status>, code: ErrorCode, says: &[&str]) -> ErrorDetail {
    let status = result.expect_err("it should have failed");
    let detail = detail(&status);
    assert_eq!(detail.code(), code, "{status:?} {detail:?}");
    assert_eq!(status.code(), grpc_code(code), "{status:?}");
    assert!(!status.message().contains('\n'), "one line: {status:?}");
    assert!(!status.message().is_empty(), "says nothing: {status:?}");
    for part in says {
        assert!(
            status.message().contains(part),
            "{:?} is not in {:?}",
            part,
            status.message()
        );
    }
    detail
}

/// The gRPC code of each of our own, as the `.proto`'s readers may rely on.
pub fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::Bundle => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::WrongState | ErrorCode::CommandNotFound | ErrorCode::CommandNotExecutable => {
            Code::FailedPrecondition
        }
        ErrorCode::Timeout => Code::DeadlineExceeded,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Resources => Code::ResourceExhausted,
        ErrorCode::ShimLost | ErrorCode::ShuttingDown => Code::Unavailable,
        ErrorCode::CursorTooOld => Code::OutOfRange,
        ErrorCode::Unimplemented => Code::Unimplemented,
        ErrorCode::Runtime | ErrorCode::Internal => Code::Internal,
        ErrorCode::Unspecified => Code::Unknown,
    }
}
