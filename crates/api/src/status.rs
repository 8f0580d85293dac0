//! Errors become gRPC statuses here and nowhere else.

use berth_core::ErrorCode;
use berth_supervisor::Error;
use berth_wire::v1;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Trailing metadata with an encoded `ErrorDetail`.
const DETAIL: &str = "berth-error-bin";

/// Bytes of a text in a status: trailers share one header block, and clients take 8 KiB of it or little more.
const MAX_TEXT: usize = 2048;

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::WrongState => Code::FailedPrecondition,
        ErrorCode::Bundle => Code::InvalidArgument,
        ErrorCode::Runtime => Code::Internal,
        ErrorCode::CommandNotFound => Code::FailedPrecondition,
        ErrorCode::CommandNotExecutable => Code::FailedPrecondition,
        ErrorCode::Timeout => Code::DeadlineExceeded,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Resources => Code::ResourceExhausted,
        ErrorCode::ShimLost => Code::Unavailable,
        ErrorCode::CursorTooOld => Code::OutOfRange,
        ErrorCode::Unimplemented => Code::Unimplemented,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::ShuttingDown => Code::Unavailable,
    }
}

fn wire_code(code: ErrorCode) -> v1::ErrorCode {
    match code {
        ErrorCode::InvalidArgument => v1::ErrorCode::InvalidArgument,
        ErrorCode::NotFound => v1::ErrorCode::NotFound,
        ErrorCode::AlreadyExists => v1::ErrorCode::AlreadyExists,
        ErrorCode::WrongState => v1::ErrorCode::WrongState,
        ErrorCode::Bundle => v1::ErrorCode::Bundle,
        ErrorCode::Runtime => v1::ErrorCode::Runtime,
        ErrorCode::CommandNotFound => v1::ErrorCode::CommandNotFound,
        ErrorCode::CommandNotExecutable => v1::ErrorCode::CommandNotExecutable,
        ErrorCode::Timeout => v1::ErrorCode::Timeout,
        ErrorCode::Cancelled => v1::ErrorCode::Cancelled,
        ErrorCode::Resources => v1::ErrorCode::Resources,
        ErrorCode::ShimLost => v1::ErrorCode::ShimLost,
        ErrorCode::CursorTooOld => v1::ErrorCode::CursorTooOld,
        ErrorCode::Unimplemented => v1::ErrorCode::Unimplemented,
        ErrorCode::Internal => v1::ErrorCode::Internal,
        ErrorCode::ShuttingDown => v1::ErrorCode::ShuttingDown,
    }
}

/// The status of a failed call: one line of text and the detail behind it.
pub fn status(error: &Error) -> Status {
    let detail = v1::ErrorDetail {
        code: wire_code(error.code()).into(),
        operation: error.operation().into(),
        id: one_line(error.id()),
        runtime_message: one_line(error.runtime_message()),
        exit_code: error.exit_code(),
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(DETAIL, MetadataValue::from_bytes(&detail.encode_to_vec()));
    Status::with_metadata(grpc_code(error.code()), one_line(&error.to_string()), metadata)
}

/// Texts of runtimes and callers may hold anything; a message is one bounded line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.trim_end().chars() {
        if line.len() >= MAX_TEXT {
            line.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_code_keeps_its_number_and_its_detail() {
        for code in ErrorCode::ALL {
            let error = Error::new(code, "run", "default/a", "why\nso").from_runtime("runc: no", 127);
            let status = status(&error);
            assert_eq!(status.message(), "run default/a: why so");
            let bytes = status
                .metadata()
                .get_bin(DETAIL)
                .expect("a detail")
                .to_bytes()
                .expect("base64");
            let detail = v1::ErrorDetail::decode(bytes).expect("a detail");
            assert_eq!(detail.code as u32, code.number());
            assert_eq!((detail.operation.as_str(), detail.exit_code), ("run", 127));
            assert_eq!(detail.runtime_message, "runc: no");
        }
    }

    #[test]
    fn texts_are_bounded() {
        let error =
            Error::new(ErrorCode::Runtime, "run", "a", "x".repeat(1 << 20)).from_runtime("é".repeat(1 << 20), 0);
        let status = status(&error);
        assert!(status.message().len() < MAX_TEXT + 8);
        assert!(
            status
                .metadata()
                .get_bin(DETAIL)
                .expect("a detail")
                .as_encoded_bytes()
                .len()
                < 4096
        );
    }
}
