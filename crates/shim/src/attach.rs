//! Attached clients: output from the ring by position, input with back-pressure to the one connection that sends it.

use berth_wire::rpc;
use berth_wire::shim::{AttachInput, AttachOutput, AttachRequest};
use bytes::Bytes;

use crate::calls::ReplyTo;
use crate::error::Error;
use crate::shim::Shim;
use crate::writer::Stream;

/// Output bytes in one message.
const PIECE: usize = 16 << 10;

#[derive(Debug)]
pub struct Attached {
    pub conn: u32,
    stream: u32,
    /// The process.
    child: u32,
    /// The next byte of output to send.
    next: u64,
}

impl Shim {
    pub fn attach(&mut self, to: ReplyTo, request: &AttachRequest) -> Result<(), Error> {
        let operation = "attach";
        let Some(child) = self.child(&request.exec_id) else {
            return Err(Error::NotFound {
                operation,
                what: format!("process {:?}", request.exec_id),
            });
        };
        let Some(ring) = child.stdio.ring() else {
            return Err(Error::State {
                operation,
                problem: "the output of this process is not kept".into(),
            });
        };
        let next = request.offset.unwrap_or(u64::MAX).min(ring.end());
        let opened = AttachOutput {
            opened: true,
            terminal: child.stdio.terminal,
            offset: next,
            ..AttachOutput::default()
        };
        let child = child.id;
        self.send_output(to, &opened);
        self.attached.push(Attached {
            conn: to.conn,
            stream: to.stream,
            child,
            next,
        });
        Ok(())
    }

    fn send_output(&mut self, to: ReplyTo, output: &AttachOutput) {
        // A piece is far below a frame's limit.
        if let Ok(bytes) = rpc::data(to.stream, output) {
            self.send(to.conn, &bytes);
        }
    }

    /// A message that does not decode, or that belongs to no stream, is dropped: its stream has ended.
    pub fn attach_input(&mut self, from: ReplyTo, body: Bytes) {
        let stream = self
            .attached
            .iter()
            .find(|a| a.conn == from.conn && a.stream == from.stream);
        let Some(id) = stream.map(|attached| attached.child) else {
            return;
        };
        let Ok(input) = rpc::parse::<AttachInput>("attach input", body) else {
            return;
        };
        let Some(child) = self.children.iter_mut().find(|child| child.id == id) else {
            return;
        };
        if !input.stdin.is_empty() {
            child.stdio.input(&input.stdin);
        }
        if input.close_stdin {
            child.stdio.close_stdin();
        }
        if input.width != 0 && input.height != 0 {
            // Pipes have no size.
            let _ = child.stdio.resize(input.width, input.height);
        }
        if !child.stdio.takes_input()
            && let Some(conn) = self.conn(from.conn)
        {
            conn.held = true;
        }
    }

    /// Reads on from clients whose input has gone where it goes.
    pub fn release_held(&mut self) {
        let full = |child: u32| self.children.iter().any(|c| c.id == child && !c.stdio.takes_input());
        let held: Vec<u32> = self.attached.iter().filter(|a| full(a.child)).map(|a| a.conn).collect();
        for conn in self.conns_mut() {
            conn.held &= held.contains(&conn.id);
        }
    }

    /// One piece to each client that has room. True if something was sent.
    pub fn feed_attached(&mut self) -> bool {
        let mut sent = false;
        let mut at = 0;
        while at < self.attached.len() {
            let Attached {
                conn,
                stream,
                child,
                next,
            } = self.attached[at];
            let to = ReplyTo { conn, stream };
            if !self.conn(conn).is_some_and(|conn| conn.has_room()) {
                at += 1;
                continue;
            }
            let Some(child) = self.children.iter().find(|c| c.id == child) else {
                self.attached.remove(at);
                continue;
            };
            let mut data = Vec::new();
            let chunk = child.stdio.ring().and_then(|ring| ring.read(next, PIECE, &mut data));
            if let Some(chunk) = chunk {
                self.attached[at].next = chunk.offset + chunk.len as u64;
                if chunk.lost > 0 {
                    self.send_output(
                        to,
                        &AttachOutput {
                            lost_bytes: chunk.lost,
                            ..AttachOutput::default()
                        },
                    );
                }
                let stream = match chunk.stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                let data = data.into();
                self.send_output(
                    to,
                    &AttachOutput {
                        offset: chunk.offset,
                        stream,
                        data,
                        ..AttachOutput::default()
                    },
                );
                sent = true;
            } else if child.told {
                let exit = child.exit;
                self.send_output(
                    to,
                    &AttachOutput {
                        exit,
                        ..AttachOutput::default()
                    },
                );
                self.answer(to, &());
                self.attached.remove(at);
                sent = true;
                continue;
            }
            at += 1;
        }
        sent
    }

    /// Ends the streams of a process that is being removed.
    pub fn detach(&mut self, child: u32) {
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|a| a.child == child);
        self.attached = stay;
        for Attached { conn, stream, .. } in gone {
            self.answer(ReplyTo { conn, stream }, &());
        }
    }
}
