//! The writer: a child of the shim that empties the ring into the log's files. It blocks on the disk so that the shim does
//! not, ends when the ring is empty and no more comes (or the shim is gone), and may be killed at any instruction.
//!
//! It takes whole entries from the ring, appends them with one write, and commits. A write that fails: policy block tries again,
//! ever more slowly; policy drop counts the batch as dropped. Either way no part of it stays in the file.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use berth_record::log::{encode, unfinished};
use berth_sys::epoll::{Epoll, Interest};
use berth_sys::eventfd::EventFd;
use berth_sys::process;

use super::files::Log;
use super::ring::{HEADER, Progress, Shared};
use super::{Format, Options, Stream};

/// Bytes of one write.
const BATCH: usize = 128 << 10;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How long a writer whose shim is gone tries to write the rest.
const ORPHANED: Duration = Duration::from_secs(10);

/// A file that is rotated before it holds anything worth it helps nobody; what asks for less gets this.
const SMALLEST: u64 = 4096;

/// What it shares with the shim.
pub struct Ends<'a> {
    pub shared: &'a Shared,
    pub data: &'a EventFd,
    pub room: &'a EventFd,
}

/// The writer's whole life. An error is one of setting up; those of the disk are dealt with.
pub fn run(shim: OwnedFd, dir: &Path, options: &Options, ends: &Ends<'_>) -> io::Result<()> {
    let options = Options {
        max_size: options.max_size.max(SMALLEST),
        ..options.clone()
    };
    process::start_process_group()?;
    let fds = [ends.data.as_fd(), ends.room.as_fd(), shim.as_fd()].map(|fd| fd.as_raw_fd());
    process::close_except(&[0, 1, 2, fds[0], fds[1], fds[2]])?;
    process::reset_signals()?;
    // Only for `ps`.
    let _ = process::set_name("berth-writer");
    let epoll = Epoll::new()?;
    epoll.add(&shim, SHIM, Interest::READ)?;
    epoll.add(ends.data, DATA, Interest::READ)?;
    Writer {
        ends,
        dir,
        options: &options,
        shim,
        progress: ends.shared.progress(),
        log: None,
        epoll,
        orphaned: None,
        input: Vec::new(),
        output: Vec::new(),
    }
    .write_all()
}

const SHIM: u64 = 0;
const DATA: u64 = 1;

struct Writer<'a> {
    ends: &'a Ends<'a>,
    dir: &'a Path,
    options: &'a Options,
    shim: OwnedFd,
    /// As committed last.
    progress: Progress,
    log: Option<Log>,
    epoll: Epoll,
    /// Since when the shim is gone.
    orphaned: Option<Instant>,
    /// Of the frame at hand, with what was carried before it; and the entries made of it.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Entries in `output` and what they make of the progress.
struct Batch {
    after: Progress,
    /// Bytes of the process's output that they hold.
    bytes: u64,
}

impl Writer<'_> {
    fn write_all(mut self) -> io::Result<()> {
        // So that there is a file even if nothing is ever written; what hinders it is dealt with when something is.
        let _ = self.log();
        loop {
            let ended = self.ends.shared.ended().load(SeqCst) == 1 || self.orphaned.is_some();
            if self.progress.tail < self.ends.shared.head().load(SeqCst) {
                if !self.write_batch()? {
                    return Ok(());
                }
            } else if ended {
                return self.write_carried().map(|_| ());
            } else {
                // The wait for the shim's eventfd, not for time.
                self.sleep()?;
            }
        }
    }

    /// Until there is more to write. Whoever appends sees `sleeps` or is seen by the second look.
    fn sleep(&mut self) -> io::Result<()> {
        let shared = self.ends.shared;
        shared.writer_sleeps().store(1, SeqCst);
        let more = self.progress.tail < shared.head().load(SeqCst) || shared.ended().load(SeqCst) == 1;
        if !more {
            self.wait(None)?;
        }
        shared.writer_sleeps().store(0, SeqCst);
        self.ends.data.read().map(|_| ())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut ready = Vec::new();
        self.epoll.wait(timeout, &mut ready)?;
        if ready.iter().any(|ready| ready.token == SHIM) {
            self.orphaned = Some(Instant::now());
            // It would stay readable.
            self.epoll.delete(&self.shim)?;
        }
        Ok(())
    }

    /// False = it is over: the shim is gone and the rest can't be written.
    fn write_batch(&mut self) -> io::Result<bool> {
        self.output.clear();
        self.persist(|writer| {
            let max_size = writer.options.max_size;
            let room = max_size.saturating_sub(writer.log()?.len);
            let mut batch = writer.gather(room);
            if batch.bytes == 0 && writer.log()?.len > 0 && batch.after == writer.progress {
                writer.rotate()?;
                batch = writer.gather(max_size);
            }
            let mut room = max_size;
            while batch.bytes == 0 && batch.after == writer.progress {
                // An entry above the limit is all alone in its file, more or less.
                room = room.saturating_mul(2);
                batch = writer.gather(room);
            }
            Ok(batch)
        })
    }

    /// Gathers, appends and commits; on failure as the policy says.
    fn persist(&mut self, mut gather: impl FnMut(&mut Self) -> io::Result<Batch>) -> io::Result<bool> {
        let mut pause = FIRST_RETRY;
        loop {
            let done = gather(self).and_then(|batch| self.append().map(|()| batch));
            match done {
                Ok(batch) => {
                    self.ends.shared.errno().store(0, SeqCst);
                    self.commit(batch.after)?;
                    return Ok(true);
                }
                Err(error) => {
                    let errno = error
                        .raw_os_error()
                        .and_then(|errno| u64::try_from(errno).ok())
                        .unwrap_or(u64::MAX);
                    self.ends.shared.errno().store(errno, SeqCst);
                    // Whatever is wrong with the file, it is looked at anew.
                    self.log = None;
                }
            }
            if self.options.drop {
                let batch = self.gather(u64::MAX);
                let dropped = self.progress.dropped + batch.bytes;
                self.commit(Progress {
                    file_len: self.progress.file_len,
                    dropped,
                    ..batch.after
                })?;
                return Ok(true);
            }
            if self.orphaned.is_some_and(|since| since.elapsed() > ORPHANED) {
                return Ok(false);
            }
            self.pause(pause)?;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    /// Before the next try. New output must not end it, so only the shim's end is listened to.
    fn pause(&mut self, pause: Duration) -> io::Result<()> {
        self.epoll.modify(self.ends.data, DATA, Interest::NONE)?;
        self.wait(Some(pause))?;
        self.epoll.modify(self.ends.data, DATA, Interest::READ)
    }

    fn log(&mut self) -> io::Result<&mut Log> {
        if self.log.is_none() {
            let known = (self.progress.inode, self.progress.file_len);
            let log = Log::open(self.dir, self.options.format, known)?;
            if (log.inode, log.len) != known {
                let progress = Progress {
                    inode: log.inode,
                    file_len: log.len,
                    ..self.progress
                };
                self.ends.shared.commit(&progress);
                self.progress = progress;
            }
            self.log = Some(log);
        }
        self.log.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.options.max_files;
        self.log()?.rotate(keep)?;
        // Committed while the new file is empty: so a writer killed in between leaves nothing that has to be undone.
        let (inode, file_len) = self.log.as_ref().map_or((0, 0), |log| (log.inode, log.len));
        self.progress = Progress {
            inode,
            file_len,
            ..self.progress
        };
        self.ends.shared.commit(&self.progress);
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let done = self.log().and_then(|log| log.append(&output));
        self.output = output;
        done
    }

    fn commit(&mut self, after: Progress) -> io::Result<()> {
        let (inode, file_len) = self
            .log
            .as_ref()
            .map_or((after.inode, after.file_len), |log| (log.inode, log.len));
        self.progress = Progress {
            inode,
            file_len,
            ..after
        };
        let shared = self.ends.shared;
        shared.commit(&self.progress);
        // Not for every frame: a loop that is woken for little does little.
        let used = shared.head().load(SeqCst) - self.progress.tail;
        if used <= shared.capacity / 2 && shared.shim_waits().swap(0, SeqCst) == 1 {
            self.ends.room.notify()?;
        }
        Ok(())
    }

    /// Fills `output` with whole entries of at most `room` bytes, from the frames behind the progress.
    fn gather(&mut self, room: u64) -> Batch {
        // More than a batch is asked for only where no entry fits into one.
        let limit = usize::try_from(room).unwrap_or(usize::MAX);
        let limit = if room > self.options.max_size {
            limit
        } else {
            limit.min(BATCH)
        };
        let head = self.ends.shared.head().load(SeqCst);
        let mut batch = Batch {
            after: self.progress,
            bytes: 0,
        };
        self.output.clear();
        while batch.after.tail < head && self.output.len() < limit.min(BATCH) {
            if !self.take_frame(&mut batch, limit) {
                break;
            }
        }
        batch
    }

    /// False = the frame, or its rest, does not fit.
    fn take_frame(&mut self, batch: &mut Batch, limit: usize) -> bool {
        let shared = self.ends.shared;
        let frame = shared.frame(batch.after.tail);
        let carry = &mut batch.after.carry[stream_index(frame.stream)];
        let carried = usize::from(carry[3]);
        self.input.clear();
        self.input.extend_from_slice(&carry[..carried]);
        shared.copy_out(
            batch.after.tail + HEADER + batch.after.within,
            frame.len - batch.after.within,
            &mut self.input,
        );
        let kept_back = if self.options.format == Format::Json {
            unfinished(&self.input)
        } else {
            0
        };
        let whole = self.input.len() - kept_back;
        let mut used = encode(
            self.options.format,
            &mut self.output,
            limit,
            frame.stream,
            frame.time,
            &self.input[..whole],
        );
        if used == 0
            && whole > 0
            && limit > 0
            && self.options.format == Format::Plain
            && self.output.is_empty()
            && self.fresh()
        {
            // A line that no file can hold is cut.
            used = whole.min(limit);
            self.output.extend_from_slice(&self.input[..used]);
        }
        if used == 0 && whole > 0 {
            return false;
        }
        batch.bytes += used as u64;
        if used < whole {
            // `used` is more than what was carried: an entry has a whole character at least.
            batch.after.within += (used - carried) as u64;
            *carry = [0; 4];
            return false;
        }
        *carry = [0; 4];
        carry[..kept_back].copy_from_slice(&self.input[whole..]);
        carry[3] = kept_back as u8;
        batch.after.tail += frame.span();
        batch.after.within = 0;
        true
    }

    fn fresh(&self) -> bool {
        self.progress.file_len == 0
    }

    /// At the end: what began like a character and was none.
    fn write_carried(&mut self) -> io::Result<bool> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let carry = self.progress.carry[stream_index(stream)];
            let bytes = usize::from(carry[3]);
            if bytes == 0 {
                continue;
            }
            let time = berth_sys::time::realtime();
            let written = self.persist(|writer| {
                writer.output.clear();
                encode(
                    writer.options.format,
                    &mut writer.output,
                    usize::MAX,
                    stream,
                    time,
                    &carry[..bytes],
                );
                let mut after = writer.progress;
                after.carry[stream_index(stream)] = [0; 4];
                Ok(Batch {
                    after,
                    bytes: bytes as u64,
                })
            })?;
            if !written {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn stream_index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
