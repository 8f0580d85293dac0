//! Reads the logs that containers' writers keep: the last lines, since when, on and on across rotation, from a cursor.
//!
//! The writer is another process that knows nothing of us: whatever it has written can be read, whatever the daemon did
//! meanwhile. Files are read on blocking threads, for a disk may hang; memory is bounded (`reader`).

mod decode;
mod files;
mod folders;
mod reader;
mod tail;
mod watch;

use std::pin::Pin;
use std::time::Duration;

use berth_core::{ErrorCode, LogFormat, StdioTo};

use crate::calls::Call;
use crate::lane::Lane;
use crate::types::{LogEntry, LogQuery};
use crate::{Error, Supervisor};
use files::LogCursor;
pub(crate) use folders::Folders;
use reader::{Filter, From, Progress, Reader};
pub use watch::{Watched, Watcher};

/// How often a log is looked at that can't be watched (the user's inotify watches are used up).
const POLL: Duration = Duration::from_millis(200);

impl Supervisor {
    /// What the log holds, and with `follow` what is still written, until the container has ended and all was read.
    pub async fn logs(&self, query: LogQuery) -> Result<LogStream, Error> {
        let refuse = |code, message: String| Err(Error::new(code, "logs", &query.key, message));
        let cursor = match query.cursor.as_str() {
            "" => None,
            text => match text.parse::<LogCursor>() {
                Ok(cursor) => Some(cursor),
                Err(error) => return refuse(error.code(), error.to_string()),
            },
        };
        let view = self.get(query.key.clone(), false).await?;
        let log = match view.stdio.to {
            StdioTo::Log(log) => log,
            StdioTo::Null | StdioTo::Fifo(_) | StdioTo::File(_) | StdioTo::Logger(_) => {
                return refuse(
                    ErrorCode::WrongState,
                    "its output is not kept: its stdio is not a log".into(),
                );
            }
        };
        let (Some(dir), false) = (view.log_path, log.discard) else {
            return Ok(LogStream::empty());
        };
        let format = log.format.unwrap_or_default();
        if format == LogFormat::Plain && (query.since != 0 || query.until != 0 || !query.streams.is_empty()) {
            let message = "a plain log has no times and no streams: since, until and streams can't be asked of it";
            return refuse(ErrorCode::InvalidArgument, message.into());
        }
        let from = match (cursor, query.tail) {
            (Some(cursor), _) => From::Cursor(cursor),
            (None, Some(count)) => From::Tail(count),
            (None, None) => From::Oldest,
        };
        let filter = Filter {
            since: query.since,
            until: query.until,
            streams: query.streams.clone(),
        };
        let ended: Pin<Box<dyn Future<Output = ()> + Send>> = if query.follow {
            let (supervisor, key) = (self.clone(), query.key.clone());
            // Deleted while we followed is an end too.
            Box::pin(async move { drop(supervisor.wait(key, None).await) })
        } else {
            Box::pin(std::future::ready(()))
        };
        let watcher = query.follow.then(|| self.log_watcher().clone());
        let (until, id) = (query.until, query.key.to_string());
        let disks = self.env().disks.clone();
        let open = move || {
            disks.reach(&dir)?;
            let Some(watcher) = watcher else {
                // Who does not follow reads what is there now, even if the container writes faster than we read.
                return Ok((Reader::open(dir, format, filter, from)?.up_to_now()?, None));
            };
            // Before the first read, so that nothing is missed between it and the wait.
            let watched = watcher.watch(&dir).inspect_err(
                |error| tracing::warn!(%error, dir = %dir.display(), "a log can't be watched; polling it"),
            );
            Ok((Reader::open(dir, format, filter, from)?, watched.ok()))
        };
        let lane = self.env().lanes.logs.clone();
        let (reader, watched) = blocking(&lane, &id, open).await?;
        Ok(LogStream {
            reader: Some(reader),
            watched,
            ended,
            has_ended: !query.follow,
            until,
            id,
            lane: Some(lane),
            _call: Some(self.env().calls.enter("logs", Some(&query.key))),
        })
    }
}

/// Dropping it ends the reading.
pub struct LogStream {
    /// `None` once everything was sent.
    reader: Option<Reader>,
    watched: Option<Watched>,
    /// The container's end; ready at once for a reader that does not follow.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
    until: i64,
    id: String,
    /// `None` where there is nothing to read.
    lane: Option<Lane>,
    _call: Option<Call>,
}

impl LogStream {
    fn empty() -> Self {
        LogStream {
            reader: None,
            watched: None,
            ended: Box::pin(std::future::ready(())),
            has_ended: true,
            until: 0,
            id: String::new(),
            lane: None,
            _call: None,
        }
    }

    /// The next entries. `None` = all was sent, or the container has ended and all was sent.
    pub async fn next(&mut self) -> Option<Result<Vec<LogEntry>, Error>> {
        loop {
            let mut reader = self.reader.take()?;
            let read = blocking(self.lane.as_ref()?, &self.id, move || {
                reader.read().map(|(entries, progress)| (reader, entries, progress))
            });
            let (reader, entries, progress) = match read.await {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            let over = match progress {
                Progress::More => false,
                Progress::AtEnd => self.has_ended,
                Progress::Until => true,
            };
            if !over {
                self.reader = Some(reader);
            }
            if !entries.is_empty() {
                return Some(Ok(entries));
            }
            if progress == Progress::AtEnd && !over {
                self.wait().await;
            }
        }
    }

    /// Until there may be more, or nothing more can come.
    async fn wait(&mut self) {
        let changed = async {
            match &self.watched {
                Some(watched) => watched.changed().await,
                // Nothing tells of changes to what can't be watched.
                None => tokio::time::sleep(POLL).await,
            }
        };
        let too_late = async {
            match self.until {
                0 => std::future::pending().await,
                // The caller named a time.
                until => tokio::time::sleep(from_now(until)).await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = &mut self.ended => self.has_ended = true,
            () = too_late => self.has_ended = true,
        }
    }
}

/// How long until this moment of the wall clock.
fn from_now(at: i64) -> Duration {
    let left = at.saturating_sub(berth_sys::time::realtime());
    Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}

async fn blocking<T: Send + 'static>(
    lane: &Lane,
    id: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match lane.run(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let code = match error.kind() {
                std::io::ErrorKind::OutOfMemory => ErrorCode::Resources,
                // EMFILE and ENFILE have no kind of their own.
                _ if matches!(error.raw_os_error(), Some(23 | 24)) => ErrorCode::Resources,
                _ => ErrorCode::Internal,
            };
            Err(Error::new(code, "logs", id, format!("read the log: {error}")))
        }
        Err(error) => Err(Error::new(
            ErrorCode::Internal,
            "logs",
            id,
            format!("the reading was cut short: {error}"),
        )),
    }
}
