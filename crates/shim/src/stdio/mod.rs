//! A process's stdio: what it is given, and what the loop does with the other ends.
//!
//! | asked | without a terminal | with one |
//! | --- | --- | --- |
//! | null | `/dev/null` | output of the terminal is read and dropped |
//! | FIFO | the FIFO itself; the loop holds its other side open and never touches the bytes | relayed both ways |
//! | log | pipes, read into the ring | the terminal, read into the ring |
//! | logger | pipes to a program that is started before it | refused |
//!
//! Invariants: nothing here blocks; a reader that died never breaks the container's writes, it makes them wait; bytes that
//! were written are read to the end before the streams are closed, also by a reader that comes after the end; a terminal's relay holds 4 KiB at most in each direction.

mod console;
mod fifo;
mod inlet;
mod logger;
mod output;
mod unread;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use berth_sys::{file, pipe::pipe, pty};
use berth_wire::shim::{Fifo, Format, Log, Stdio as Spec, stdio::To};

use crate::error::Error;
use crate::watch::{Part, Poll, Token, Want};
use crate::writer::{self, Ring, Stream};
use console::Console;
use fifo::{Awaited, Kept};
pub use fifo::{Fifos, Opened};
use inlet::{Feed, Inlet};
pub use logger::Logger;
use output::{Output, Sink};
use unread::Unread;

/// What the new process is given.
#[derive(Debug)]
pub enum Ends {
    Fds {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Console {
        /// Of the console socket in the container's folder.
        name: String,
        fifos: Option<Fifos>,
    },
    /// The creator opens them.
    Fifo(Fifos),
    /// Both output streams are appended to it; the creator opens it.
    File(PathBuf),
    /// Both output streams go to it; the creator starts it.
    Logger(Logger),
}

/// The loop's ends.
#[derive(Debug)]
pub struct Stdio {
    owner: u32,
    poll: Poll,
    pub terminal: bool,
    size: (u16, u16),
    console: Option<Console>,
    /// The terminal, for its size.
    master: Option<OwnedFd>,
    output: Output,
    /// Input by the loop: attach or a terminal's FIFO.
    inlet: Option<Inlet>,
    feed: Option<Feed>,
    /// Keeps a container's stdin FIFO from its end of file.
    stdin_hold: Option<OwnedFd>,
    /// Keep container's output FIFOs writable while nobody reads, and what was written readable.
    output_holds: Vec<OwnedFd>,
    wants_input: bool,
    /// FIFOs that the creator opens.
    awaited: Option<Awaited>,
}

/// No descriptor is left.
const EMFILE: i32 = 24;

fn fifos(fifo: &Fifo) -> Fifos {
    Fifos {
        stdin: fifo.stdin.clone(),
        stdout: fifo.stdout.clone(),
        stderr: fifo.stderr.clone(),
        owner: (fifo.uid, fifo.gid),
    }
}

fn bad(problem: impl Into<String>) -> Error {
    Error::Invalid {
        operation: "stdio",
        problem: problem.into(),
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    Error::io("stdio", what)
}

impl Stdio {
    /// `owner` names the process in tokens. `folder` is the container's; `logged` = whether a log may have a file.
    pub fn open(
        spec: &Spec,
        owner: u32,
        poll: &Poll,
        folder: &Rc<OwnedFd>,
        logged: bool,
    ) -> Result<(Stdio, Ends), Error> {
        let null = To::Null(Default::default());
        let to = spec.to.as_ref().unwrap_or(&null);
        let mut stdio = Stdio {
            owner,
            poll: poll.clone(),
            terminal: spec.terminal,
            size: (size(spec.width, 80)?, size(spec.height, 24)?),
            console: None,
            master: None,
            output: Output::new(sink(to, owner, poll, spec.terminal, logged)?),
            inlet: None,
            feed: None,
            stdin_hold: None,
            output_holds: Vec::new(),
            wants_input: matches!(to, To::Log(Log { stdin: true, .. })),
            awaited: None,
        };
        let ends = if spec.terminal {
            stdio.open_terminal(to, folder)?
        } else {
            stdio.open_plain(to)?
        };
        Ok((stdio, ends))
    }

    fn open_terminal(&mut self, to: &To, folder: &Rc<OwnedFd>) -> Result<Ends, Error> {
        let fifos = if let To::Fifo(fifo) = to {
            self.wants_input = !fifo.stdin.is_empty();
            self.awaited = Some(Awaited {
                terminal: true,
                stdin: !fifo.stdin.is_empty(),
                stdout: !fifo.stdout.is_empty(),
                stderr: false,
            });
            Some(fifos(fifo))
        } else {
            None
        };
        let console = Console::listen(folder, self.owner, &self.poll)?;
        let name = console.name().to_owned();
        self.console = Some(console);
        Ok(Ends::Console { name, fifos })
    }

    fn open_plain(&mut self, to: &To) -> Result<Ends, Error> {
        let null = || file::dev_null().map_err(io("/dev/null"));
        match to {
            To::Null(_) => Ok(Ends::Fds {
                stdin: null()?,
                stdout: null()?,
                stderr: null()?,
            }),
            To::Fifo(fifo) => {
                self.awaited = Some(Awaited {
                    terminal: false,
                    stdin: !fifo.stdin.is_empty(),
                    stdout: !fifo.stdout.is_empty(),
                    stderr: !fifo.stderr.is_empty(),
                });
                Ok(Ends::Fifo(fifos(fifo)))
            }
            To::File(file) => {
                if !file.path.starts_with('/') {
                    return Err(bad(format!("{} is not an absolute path", file.path)));
                }
                Ok(Ends::File((&file.path).into()))
            }
            To::Logger(logger) => {
                if !logger.program.starts_with('/') {
                    return Err(bad(format!("{} is not an absolute path", logger.program)));
                }
                Ok(Ends::Logger(Logger::from(logger)))
            }
            To::Log(log) => {
                let stdin = if log.stdin {
                    let (given, write) = pipe().map_err(io("pipe"))?;
                    self.inlet = Some(Inlet::new(write, false, self.owner, &self.poll)?);
                    given
                } else {
                    null()?
                };
                let mut pipe = |stream| {
                    let (read, given) = pipe().map_err(io("pipe"))?;
                    self.output.add(stream, read, self.owner, &self.poll)?;
                    Ok::<_, Error>(given)
                };
                Ok(Ends::Fds {
                    stdin,
                    stdout: pipe(Stream::Stdout)?,
                    stderr: pipe(Stream::Stderr)?,
                })
            }
        }
    }

    /// The runtime's connection, when it came; the terminal is set up and joined to the relays. True = the terminal is there.
    pub fn take_console(&mut self) -> Result<bool, Error> {
        let Some(console) = &mut self.console else {
            return Ok(self.master.is_some());
        };
        let Some(master) = console.take()? else {
            return Ok(false);
        };
        self.console = None;
        pty::set_size(&master, self.size.0, self.size.1).map_err(io("terminal"))?;
        let dup = || file::duplicate(&master).map_err(io("terminal"));
        self.output.add(Stream::Stdout, dup()?, self.owner, &self.poll)?;
        if self.wants_input {
            self.inlet = Some(Inlet::new(dup()?, true, self.owner, &self.poll)?);
        }
        self.master = Some(master);
        self.pump();
        Ok(true)
    }

    /// The loop's ends of the FIFOs, which a creator has opened; before there is a process.
    pub fn take_fifos(&mut self, fds: Vec<OwnedFd>) -> Result<(), Error> {
        let Some(awaited) = self.awaited.take() else {
            return Ok(());
        };
        let missing = || io("FIFO")(std::io::Error::from_raw_os_error(EMFILE));
        let Kept {
            feed,
            sink,
            stdin_hold,
            output_holds,
        } = awaited.take(fds).ok_or_else(missing)?;
        if let Some((reader, hold)) = feed {
            self.feed = Some(Feed::new(reader, hold, self.owner, &self.poll)?);
        }
        if awaited.terminal {
            let sink = sink.map_or(Ok(Sink::Nowhere), |(writer, hold)| {
                Sink::fifo(writer, hold, self.owner, &self.poll)
            });
            self.output.set_sink(sink?);
        }
        self.stdin_hold = stdin_hold;
        self.output_holds = output_holds;
        self.pump();
        Ok(())
    }

    /// Width and height of its terminal.
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    pub fn resize(&mut self, width: u32, height: u32) -> Result<(), Error> {
        let (width, height) = (size(width, 80)?, size(height, 24)?);
        self.size = (width, height);
        match &self.master {
            Some(master) => pty::set_size(master, width, height).map_err(io("terminal")),
            None if self.console.is_some() => Ok(()),
            None => Err(Error::State {
                operation: "resize",
                problem: "it has no terminal".into(),
            }),
        }
    }

    /// The process reads end of file after what was queued.
    pub fn close_stdin(&mut self) {
        self.stdin_hold = None;
        if let Some(feed) = &mut self.feed {
            // The caller's own writers, and what they wrote, come first; nothing is typed into the terminal.
            feed.let_go();
            return self.pump_input();
        }
        if self.inlet.as_mut().is_some_and(Inlet::close) {
            self.inlet = None;
        }
    }

    /// Queues input. False = this process takes none.
    pub fn input(&mut self, bytes: &[u8]) -> bool {
        let Some(inlet) = &mut self.inlet else { return false };
        inlet.push(bytes);
        self.pump_input();
        true
    }

    /// Whether more input may be queued.
    pub fn takes_input(&self) -> bool {
        self.inlet.as_ref().is_none_or(Inlet::has_room)
    }

    /// Moves on whatever can be moved, a turn's worth.
    pub fn pump(&mut self) {
        self.output.pump();
        self.pump_input();
    }

    fn pump_input(&mut self) {
        let Some(inlet) = &mut self.inlet else { return };
        if let Some(feed) = &mut self.feed
            && !feed.pump(inlet)
        {
            self.feed = None;
        }
        if !inlet.flush() {
            self.inlet = None;
            self.feed = None;
        }
    }

    /// The process has ended: it reads no more, and what it wrote is read to the end.
    pub fn ended(&mut self) {
        self.console = None;
        self.inlet = None;
        self.feed = None;
        self.stdin_hold = None;
        if !self.output_holds.is_empty() {
            let holds = std::mem::take(&mut self.output_holds);
            self.output
                .set_sink(Sink::Unread(Unread::new(holds, self.owner, &self.poll)));
        }
        self.pump();
        self.output.end_if_unused();
    }

    /// When to [`Stdio::pump`] if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.output.deadline()
    }

    /// Whether everything that was written has gone where it goes.
    pub fn is_drained(&self) -> bool {
        self.output.is_drained()
    }

    /// Reads what is in the pipes now, in so many turns at most.
    pub fn drain_now(&mut self, turns: usize) {
        for _ in 0..turns {
            if !self.output.pump() {
                break;
            }
        }
    }

    pub fn ring(&self) -> Option<&Ring> {
        self.output.ring()
    }

    pub fn writer(&self) -> Option<u32> {
        self.output.writer()
    }

    /// Its files are being removed.
    pub fn kill_writer(&mut self) {
        self.output.kill_writer();
    }

    /// The writer ended; it is made again unless its work is done.
    pub fn writer_ended(&mut self, ok: bool) {
        self.output.writer_ended(ok);
    }
}

fn size(asked: u32, default: u16) -> Result<u16, Error> {
    match asked {
        0 => Ok(default),
        _ => u16::try_from(asked).map_err(|_| bad(format!("a terminal of {asked} columns or lines"))),
    }
}

fn sink(to: &To, owner: u32, poll: &Poll, terminal: bool, logged: bool) -> Result<Sink, Error> {
    match to {
        To::Fifo(_) if terminal => Ok(Sink::Awaited),
        To::File(_) | To::Logger(_) if terminal => Err(bad("a terminal's output can't go to a file or a logger yet")),
        To::Null(_) | To::Fifo(_) | To::File(_) | To::Logger(_) => Ok(Sink::Nowhere),
        To::Log(log) => {
            let dir = (logged && !log.dir.is_empty()).then(|| log.dir.clone().into());
            let format = match log.format() {
                Format::Cri => writer::Format::Cri,
                Format::Json => writer::Format::Json,
                Format::Plain => writer::Format::Plain,
            };
            let drop = log.drop;
            let options = writer::Options {
                dir,
                format,
                drop,
                max_size: log.max_size,
                max_files: log.max_files,
            };
            let mut ring = Ring::new(options).map_err(io("log"))?;
            let writer = ring.spawn().map_err(io("writer"))?;
            let room = ring
                .room()
                .map(|room| room.try_clone_to_owned())
                .transpose()
                .map_err(io("log"))?;
            let token = Token::Io(owner, Part::Room);
            let room = room
                .map(|room| poll.watch(room, token, Want::READ))
                .transpose()
                .map_err(io("log"))?;
            Ok(Sink::Ring(Box::new(output::Kept {
                ring,
                writer,
                room,
                finished: false,
                deaths: 0,
                written: 0,
                given_up: false,
            })))
        }
    }
}

/// Makes an fd of the loop's non-blocking. Only for descriptions that the container does not share.
fn nonblocking(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    file::set_nonblocking(&fd, true)?;
    Ok(fd)
}
