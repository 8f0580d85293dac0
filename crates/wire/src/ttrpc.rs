//! ttrpc frames as a sans-I/O codec: bytes are pushed in as they come, whole frames are popped.
//!
//! ```text
//! length u32be | stream id u32be | type u8 | flags u8 | body
//! ```
//!
//! The protocol is containerd's (github.com/containerd/ttrpc, PROTOCOL.md). A body is at most [`MAX_BODY`] bytes: a longer one ends the
//! connection, since nothing after it can be trusted. Client stream ids are odd and increasing; the callers hold to that.

use bytes::{Buf, Bytes, BytesMut};

/// containerd's own limit.
pub const MAX_BODY: usize = 4 << 20;
/// Bytes of a frame's header.
pub const HEADER: usize = 10;

/// The sender will send nothing more on this stream.
pub const FLAG_REMOTE_CLOSED: u8 = 0x1;
/// The sender goes on sending DATA on this stream.
pub const FLAG_REMOTE_OPEN: u8 = 0x2;
/// The DATA frame carries no message (an empty body would otherwise be an empty message).
pub const FLAG_NO_DATA: u8 = 0x4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Data,
}

/// One whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: Kind,
    pub flags: u8,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("ttrpc: a frame of {0} bytes is longer than {MAX_BODY}")]
    TooLong(u32),
    #[error("ttrpc: unknown frame type {0}")]
    Kind(u8),
}

/// Turns a stream of bytes into frames. After an error every further call fails the same way: the stream is out of step.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    broken: Option<FrameError>,
}

impl Decoder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they were read. Pop all frames before pushing more: then at most one partial frame is held.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, if there is one.
    pub fn pop(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        match self.next() {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.broken = Some(error.clone());
                self.buffer = BytesMut::new();
                Err(error)
            }
        }
    }

    /// True if a peer that closes now has cut a frame.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(mut header) = self.buffer.get(..HEADER) else {
            return Ok(None);
        };
        let (len, stream, kind, flags) = (header.get_u32(), header.get_u32(), header.get_u8(), header.get_u8());
        // Checked before the body is there, so that a hostile length never makes us hold more than one frame's bytes.
        if len as usize > MAX_BODY {
            return Err(FrameError::TooLong(len));
        }
        let kind = Kind::from_byte(kind)?;
        if self.buffer.len() < HEADER + len as usize {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let body = self.buffer.split_to(len as usize).freeze();
        if self.buffer.is_empty() {
            // A shim is idle most of its life: it holds no buffer then.
            self.buffer = BytesMut::new();
        }
        Ok(Some(Frame {
            stream,
            kind,
            flags,
            body,
        }))
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self, FrameError> {
        match byte {
            1 => Ok(Self::Request),
            2 => Ok(Self::Response),
            3 => Ok(Self::Data),
            other => Err(FrameError::Kind(other)),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Data => 3,
        }
    }
}

/// A frame's bytes. Fails if the body is longer than a peer would take.
pub fn encode_frame(stream: u32, kind: Kind, flags: u8, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    encode_with(stream, kind, flags, body.len(), |out| out.extend_from_slice(body))
}

/// A frame's bytes around a message, encoded in place.
pub fn encode_message(
    stream: u32,
    kind: Kind,
    flags: u8,
    message: &impl prost::Message,
) -> Result<Vec<u8>, FrameError> {
    // A Vec grows as needed, so the encoding can't run out of room.
    encode_with(stream, kind, flags, message.encoded_len(), |out| {
        message.encode_raw(out)
    })
}

fn encode_with(
    stream: u32,
    kind: Kind,
    flags: u8,
    len: usize,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<Vec<u8>, FrameError> {
    let short = u32::try_from(len).unwrap_or(u32::MAX);
    if len > MAX_BODY {
        return Err(FrameError::TooLong(short));
    }
    let mut out = Vec::with_capacity(HEADER + len);
    out.extend_from_slice(&short.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.push(kind.byte());
    out.push(flags);
    body(&mut out);
    Ok(out)
}

/// Body of a REQUEST frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// Nanoseconds that the caller will wait; 0 = no bound.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Body of a RESPONSE frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
}

/// google.rpc.Status.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A gRPC code; 0 = OK.
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Request), Just(Kind::Response), Just(Kind::Data)]
    }

    fn drain(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
        std::iter::from_fn(|| decoder.pop().transpose()).collect()
    }

    #[test]
    fn golden_frame() {
        let bytes = encode_frame(3, Kind::Response, FLAG_REMOTE_CLOSED, b"hi").unwrap();
        assert_eq!(bytes, b"\0\0\0\x02\0\0\0\x03\x02\x01hi");
    }

    #[test]
    fn an_oversized_frame_breaks_the_stream_for_good() {
        let mut decoder = Decoder::new();
        decoder.push(b"\x00\x40\x00\x01\0\0\0\x01\x01\0");
        assert_eq!(decoder.pop(), Err(FrameError::TooLong(MAX_BODY as u32 + 1)));
        decoder.push(&encode_frame(1, Kind::Data, 0, b"x").unwrap());
        assert_eq!(decoder.pop(), Err(FrameError::TooLong(MAX_BODY as u32 + 1)));
        assert!(encode_frame(1, Kind::Data, 0, &vec![0; MAX_BODY + 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_cleanly(chunks: Vec<Vec<u8>>) {
            let mut decoder = Decoder::new();
            for chunk in chunks {
                decoder.push(&chunk);
                let _ = drain(&mut decoder);
            }
        }

        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec((any::<u32>(), kind(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            cut in 1usize..50,
        ) {
            let frames: Vec<_> = frames.into_iter()
                .map(|(stream, kind, flags, body)| Frame { stream, kind, flags, body: body.into() })
                .collect();
            let bytes: Vec<u8> = frames.iter()
                .flat_map(|frame| encode_frame(frame.stream, frame.kind, frame.flags, &frame.body).unwrap())
                .collect();
            let mut decoder = Decoder::new();
            let mut got = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.push(chunk);
                got.extend(drain(&mut decoder).unwrap());
            }
            prop_assert_eq!(got, frames);
            prop_assert!(!decoder.is_partial());
        }
    }
}
