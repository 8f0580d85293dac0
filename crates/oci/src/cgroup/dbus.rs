//! The little of D-Bus that starting a systemd unit takes: authentication, method calls, one signal.
//!
//! By hand, because a creator must stay single-threaded (it clones the container's process) and the crates that speak D-Bus
//! start threads or an async runtime. Invariant: no call waits longer than the deadline that the connection was opened with.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// More than systemd ever says.
const LARGEST: usize = 1 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Variant {
    fn signature(&self) -> &'static str {
        match self {
            Variant::Text(_) => "s",
            Variant::Flag(_) => "b",
            Variant::Number(_) => "t",
            Variant::Numbers(_) => "au",
            Variant::Bytes(_) => "ay",
        }
    }
}

/// A message's body, or its header, in the making.
#[derive(Debug, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn raw_number(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn raw_text(&mut self, text: &str) {
        self.raw_number(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn raw_signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(0));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn raw_array(&mut self, align: usize, fill: impl FnOnce(&mut Body)) {
        self.raw_number(0);
        let place = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        fill(self);
        let size = length(self.bytes.len() - start);
        self.bytes[place..place + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn raw_variant(&mut self, value: &Variant) {
        self.raw_signature(value.signature());
        match value {
            Variant::Text(text) => self.raw_text(text),
            Variant::Flag(flag) => self.raw_number((*flag).into()),
            Variant::Number(number) => {
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Variant::Numbers(all) => self.raw_array(4, |body| all.iter().for_each(|number| body.raw_number(*number))),
            Variant::Bytes(bytes) => self.raw_array(1, |body| body.bytes.extend(bytes)),
        }
    }

    pub(super) fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        self.raw_text(text);
        self
    }

    pub(super) fn flag(mut self, flag: bool) -> Body {
        self.signature.push('b');
        self.raw_number(flag.into());
        self
    }

    /// `a(sv)`
    pub(super) fn properties(mut self, all: &[(&str, Variant)]) -> Body {
        self.signature.push_str("a(sv)");
        self.raw_array(8, |body| {
            for (name, value) in all {
                body.align(8);
                body.raw_text(name);
                body.raw_variant(value);
            }
        });
        self
    }

    /// `a(sa(sv))` without members.
    pub(super) fn no_units(mut self) -> Body {
        self.signature.push_str("a(sa(sv))");
        self.raw_array(8, |_| {});
        self
    }
}

fn length(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Where a method is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

/// The bus.
const ITSELF: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// What came in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
    big: bool,
}

/// Reads values in order; what is not there is `None`.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn text(&mut self) -> Option<String> {
        let size = self.number()? as usize;
        let text = String::from_utf8(self.take(size)?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let size = self.byte()?;
        let text = String::from_utf8(self.take(size.into())?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }
}

impl Message {
    fn reader(&self) -> Reader<'_> {
        Reader {
            bytes: &self.body,
            at: 0,
            big: self.big,
        }
    }

    /// The body, where it is of texts and numbers only; numbers as text.
    pub(super) fn words(&self) -> Vec<String> {
        let mut reader = self.reader();
        let read = |kind| match kind {
            's' | 'o' => reader.text(),
            'u' => reader.number().map(|number| number.to_string()),
            _ => None,
        };
        self.signature.chars().map_while(read).collect()
    }

    /// From the header's fixed part and what follows it; `None` = not D-Bus.
    fn parse(fixed: &[u8; 16], rest: &[u8], fields: usize) -> Option<Message> {
        let big = fixed[0] == b'B';
        let mut message = Message {
            kind: fixed[1],
            big,
            ..Message::default()
        };
        let mut reader = Reader {
            bytes: rest.get(..fields)?,
            at: 0,
            big,
        };
        while reader.at < fields {
            reader.align(8);
            let field = reader.byte()?;
            match reader.signature()?.as_str() {
                "u" => {
                    let number = reader.number()?;
                    if field == 5 {
                        message.reply_to = number;
                    }
                }
                "g" => message.signature = reader.signature()?,
                "s" | "o" => {
                    let text = reader.text()?;
                    match field {
                        3 => message.member = text,
                        4 => message.error = text,
                        _ => {}
                    }
                }
                _ => return None,
            }
        }
        message.body = rest.get(fields.next_multiple_of(8)..)?.to_vec();
        Some(message)
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// As connect(2); a bus that refuses; TimedOut.
    pub(super) fn connect(socket: &Path, within: Duration) -> io::Result<Bus> {
        let deadline = Instant::now() + within;
        let mut bus = Bus {
            stream: berth_sys::socket::connect_within(socket, within).map_err(late)?.into(),
            deadline,
            serial: 0,
            signals: Vec::new(),
        };
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?);
        let hex: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 256 {
            let mut byte = [0];
            bus.receive(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            let said = String::from_utf8_lossy(&line);
            return Err(io::Error::other(format!("the bus refuses: {}", said.trim_end())));
        }
        bus.send(b"BEGIN\r\n")?;
        bus.call(ITSELF, "Hello", Body::default())?;
        Ok(bus)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes).map_err(late)
    }

    fn receive(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => into = &mut into[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error)),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Message> {
        let mut fixed = [0; 16];
        self.receive(&mut fixed)?;
        let number = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            if fixed[0] == b'B' {
                u32::from_be_bytes(bytes) as usize
            } else {
                u32::from_le_bytes(bytes) as usize
            }
        };
        let (body, fields) = (number(4), number(12));
        if body > LARGEST || fields > LARGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.receive(&mut rest)?;
        Message::parse(&fixed, &rest, fields).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// The other side's, with its name in front; TimedOut.
    pub(super) fn call(&mut self, object: Object, member: &str, body: Body) -> io::Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let message = encode(serial, object, member, &body);
        self.send(&message)?;
        loop {
            let message = self.next()?;
            match message.kind {
                SIGNAL => self.signals.push(message),
                RETURN if message.reply_to == serial => return Ok(message),
                ERROR if message.reply_to == serial => {
                    let said = message.words().into_iter().next().unwrap_or_default();
                    return Err(io::Error::other(format!("{}: {said}", message.error)));
                }
                _ => {}
            }
        }
    }

    /// Asks for a signal.
    ///
    /// # Errors
    /// As [`Bus::call`].
    pub(super) fn listen(&mut self, interface: &str, member: &str) -> io::Result<()> {
        let rule = format!("type='signal',interface='{interface}',member='{member}'");
        self.call(ITSELF, "AddMatch", Body::default().text(&rule)).map(drop)
    }

    /// The words of the first signal of this name that is accepted, those that came before among them.
    ///
    /// # Errors
    /// TimedOut.
    pub(super) fn signal(&mut self, member: &str, accept: impl Fn(&[String]) -> bool) -> io::Result<Vec<String>> {
        let mut early = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match early.next() {
                Some(message) => message,
                None => self.next()?,
            };
            let words = message.words();
            if message.kind == SIGNAL && message.member == member && accept(&words) {
                return Ok(words);
            }
        }
    }
}

/// A socket's time limit says EAGAIN.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn encode(serial: u32, object: Object, member: &str, body: &Body) -> Vec<u8> {
    let mut header = Body::default();
    header.bytes.extend([b'l', CALL, 0, 1]);
    header.raw_number(length(body.bytes.len()));
    header.raw_number(serial);
    header.raw_array(8, |header| {
        let fields = [
            (1, "o", object.path),
            (2, "s", object.interface),
            (3, "s", member),
            (6, "s", object.destination),
        ];
        for (number, kind, text) in fields {
            header.align(8);
            header.bytes.push(number);
            header.raw_signature(kind);
            header.raw_text(text);
        }
        if !body.signature.is_empty() {
            header.align(8);
            header.bytes.push(8);
            header.raw_signature("g");
            header.raw_signature(&body.signature);
        }
    });
    header.align(8);
    header.bytes.extend(&body.bytes);
    header.bytes
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let object = Object {
            destination: "a.b",
            path: "/p",
            interface: "i.f",
        };
        let written = encode(7, object, "Do", &Body::default().text("one").text("two"));
        let fixed: [u8; 16] = written[..16].try_into().expect("a header");
        let fields = u32::from_le_bytes(written[12..16].try_into().expect("a length")) as usize;
        let message = Message::parse(&fixed, &written[16..], fields).expect("legal");
        assert_eq!(
            (message.member.as_str(), message.words()),
            ("Do", vec!["one".to_owned(), "two".to_owned()])
        );
    }

    #[test]
    fn nonsense_is_no_message() {
        for size in 1..64 {
            let bytes = vec![0xff; size];
            assert_eq!(Message::parse(&[b'l'; 16], &bytes, size), None);
        }
    }

    /// Cut short anywhere, or with any byte another: read or refused, and never worse.
    #[test]
    fn a_damaged_message_harms_nobody() {
        let object = Object {
            destination: "a.b",
            path: "/p",
            interface: "i.f",
        };
        let written = encode(7, object, "Do", &Body::default().text("one").text("two"));
        let read = |bytes: &[u8]| {
            let fixed: [u8; 16] = bytes[..16].try_into().expect("a header");
            let fields = u32::from_le_bytes(bytes[12..16].try_into().expect("a length")) as usize;
            if let Some(message) = Message::parse(&fixed, &bytes[16..], fields) {
                message.words();
            }
        };
        for at in 16..written.len() {
            read(&written[..at]);
        }
        for at in 0..written.len() {
            for value in [0, 1, b's', b'u', 0x7f, 0xff] {
                let mut damaged = written.clone();
                damaged[at] = value;
                read(&damaged);
            }
        }
    }

    /// A bus that takes the connection and says nothing costs the deadline and one error.
    #[test]
    fn a_silent_bus_is_given_up() {
        let path = std::env::temp_dir().join(format!("berth-dbus-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let error = Bus::connect(&path, Duration::from_millis(50)).expect_err("silent");
        std::fs::remove_file(&path).expect("removed");
        drop(listener);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
