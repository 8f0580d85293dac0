//! An attachment: a connection of its own to the shim, so that a reader that does not read stops nothing else.

use std::sync::Arc;
use std::time::Duration;

use berth_core::{ErrorCode, Stream};
use berth_wire::hello::{self, Verdict};
use berth_wire::rpc::{self, Method, Outcome};
use berth_wire::shim as wire;
use berth_wire::ttrpc::{Decoder, Frame, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;

use super::convert;
use crate::Error;
use crate::deps::{Shims, Stream as Connection};
use crate::types::{AttachInput, AttachOpened, AttachOutput, Attachment};

/// The only call on its connection.
const STREAM: u32 = 1;
/// Messages between the connection and the caller; beyond them the shim holds the output in its window.
const QUEUE: usize = 16;

struct Reader {
    from: ReadHalf<Box<dyn Connection>>,
    decoder: Decoder,
}

impl Reader {
    /// `None` at the end of the connection.
    async fn frame(&mut self) -> Result<Option<Frame>, String> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(frame) = self.decoder.pop().map_err(|e| e.to_string())? {
                return Ok(Some(frame));
            }
            match self.from.read(&mut buffer).await.map_err(|e| e.to_string())? {
                0 => return Ok(None),
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }
}

/// Connects and opens; the rest runs in a task that ends with either side.
pub(crate) async fn open(
    shims: &dyn Shims,
    folder: &Arc<berth_record::Folder>,
    request: wire::AttachRequest,
    generation: u64,
    deadline: Duration,
    id: String,
) -> Result<Attachment, Error> {
    let lost = |why: String| {
        Error::new(
            ErrorCode::ShimLost,
            "attach",
            &id,
            format!("the shim does not answer: {why}"),
        )
    };
    let opening = async {
        let stream = shims.connect(folder).await.map_err(|e| lost(e.to_string()))?;
        let (mut from, mut to) = tokio::io::split(stream);
        let mut bytes = hello::Hello::daemon(generation).encode().to_vec();
        bytes.extend(rpc::request(STREAM, Method::Attach, &request).map_err(|e| lost(e.to_string()))?);
        to.write_all(&bytes).await.map_err(|e| lost(e.to_string()))?;
        let mut greeting = [0; hello::LEN];
        from.read_exact(&mut greeting).await.map_err(|e| lost(e.to_string()))?;
        let answer = hello::Answer::decode(&greeting).map_err(|e| lost(e.to_string()))?;
        if answer.verdict != Verdict::Ok {
            return Err(lost(format!("it speaks version {} at most", answer.max)));
        }
        let mut reader = Reader {
            from,
            decoder: Decoder::new(),
        };
        let frame = reader
            .frame()
            .await
            .map_err(lost)?
            .ok_or_else(|| lost("it closed the connection".into()))?;
        let opened = match frame.kind {
            Kind::Data => rpc::parse::<wire::AttachOutput>("attach", frame.body).map_err(|e| lost(e.to_string()))?,
            Kind::Response | Kind::Request => match rpc::parse_response(frame.body) {
                Ok(Outcome::Failed { message, failure }) => {
                    return Err(super::CallError::Failed { message, failure }.into_error("attach", &id));
                }
                _ => return Err(lost("an answer that makes no sense".into())),
            },
        };
        let opened_now = AttachOpened {
            offset: opened.offset,
            terminal: opened.terminal,
        };
        Ok((opened_now, reader, to))
    };
    let (opened, mut reader, mut to) = tokio::time::timeout(deadline, opening)
        .await
        .unwrap_or_else(|_| Err(lost(format!("nothing within {} ms", deadline.as_millis()))))?;

    let (input, mut inputs) = mpsc::channel::<AttachInput>(QUEUE);
    let (outputs, output) = mpsc::channel(QUEUE);
    let send_input = async move {
        while let Some(input) = inputs.recv().await {
            let message = match input {
                AttachInput::Stdin(stdin) => wire::AttachInput {
                    stdin: stdin.into(),
                    ..Default::default()
                },
                AttachInput::CloseStdin => wire::AttachInput {
                    close_stdin: true,
                    ..Default::default()
                },
                AttachInput::Resize(size) => wire::AttachInput {
                    width: size.width.into(),
                    height: size.height.into(),
                    ..Default::default()
                },
            };
            let Ok(frame) = rpc::data(STREAM, &message) else {
                continue;
            };
            if to.write_all(&frame).await.is_err() {
                break;
            }
        }
        // No more input is not the end: output goes on.
        std::future::pending::<()>().await;
    };
    tokio::spawn(async move {
        let receive = async {
            loop {
                let message = match reader.frame().await {
                    Ok(Some(frame)) if frame.kind == Kind::Data => {
                        rpc::parse::<wire::AttachOutput>("attach", frame.body).map_err(|e| e.to_string())
                    }
                    // The shim ended the stream without an exit, or is gone: what was sent is all there is now.
                    Ok(_) => Err("the shim closed the connection".into()),
                    Err(why) => Err(why),
                };
                let item = message
                    .map_err(|why| Error::new(ErrorCode::ShimLost, "attach", &id, why))
                    .map(output_of);
                let last = matches!(item, Err(_) | Ok(Some(AttachOutput::Exit(_))));
                if let Some(item) = item.transpose()
                    && outputs.send(item).await.is_err()
                {
                    return;
                }
                if last {
                    return;
                }
            }
        };
        tokio::select! {
            () = receive => {}
            () = send_input => {}
            // Nobody reads any more: detach at once, not at the next byte.
            () = outputs.closed() => {}
        }
    });
    Ok(Attachment { opened, input, output })
}

fn output_of(message: wire::AttachOutput) -> Option<AttachOutput> {
    if let Some(exit) = message.exit {
        return Some(AttachOutput::Exit(convert::exit(&exit)));
    }
    if message.lost_bytes > 0 {
        return Some(AttachOutput::Lost(message.lost_bytes));
    }
    if message.data.is_empty() {
        return None;
    }
    let stream = if message.stream == 2 {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    Some(AttachOutput::Chunk {
        stream,
        data: message.data.into(),
        offset: message.offset,
    })
}
