//! The thread that owns the database, and the one that makes its log durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::tables::Tables;

/// Requests that wait; who comes then waits outside.
const QUEUE: usize = 1024;

/// Requests of one transaction.
const GROUP: usize = 256;

/// An answered change is on the disk after this time and one sync.
const DURABLE_WITHIN: Duration = Duration::from_millis(500);

/// The log is copied back into the database beyond this size.
const MAX_LOG: u64 = 4 << 20;

/// Told that the group is committed, or why it is not.
type Answer = Box<dyn FnOnce(Result<(), Error>)>;
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// The database; clones share it. It closes when the last is gone.
#[derive(Clone)]
pub struct Meta {
    jobs: mpsc::Sender<Job>,
}

impl Meta {
    pub(crate) fn start(connection: Connection, path: &Path) -> Result<Self, Error> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let (changed, changes) = std_mpsc::sync_channel::<()>(1);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        let failed = |source| Error::Io {
            operation: "start a thread for",
            path: path.to_owned(),
            source: Arc::new(source),
        };
        std::thread::Builder::new()
            .name("meta-sync".into())
            .spawn({
                let path = path.to_owned();
                move || sync(&path, &log, &changes)
            })
            .map_err(failed)?;
        std::thread::Builder::new()
            .name("meta".into())
            .spawn(move || {
                let mut group = Vec::with_capacity(GROUP);
                while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
                    run(&connection, group.drain(..), &changed);
                }
            })
            .map_err(failed)?;
        Ok(Meta { jobs })
    }

    /// Runs `work` in a transaction; what it answers is answered after the commit. If the caller gives up, the work is done all the same.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let done = savepoint(connection, work);
            Box::new(move |committed| {
                // Nobody waits for it any more.
                let _ = sender.send(committed.and(done));
            })
        });
        self.jobs.send(job).await.map_err(|_| Error::Closed)?;
        receiver.await.map_err(|_| Error::Closed)?
    }
}

fn savepoint<T>(connection: &Connection, work: impl FnOnce(&Tables<'_>) -> Result<T, Error>) -> Result<T, Error> {
    connection.execute_batch("SAVEPOINT job")?;
    let done = work(&Tables(connection));
    if done.is_err() {
        connection.execute_batch("ROLLBACK TO job")?;
    }
    connection.execute_batch("RELEASE job")?;
    done
}

fn run(connection: &Connection, group: impl Iterator<Item = Job>, changed: &std_mpsc::SyncSender<()>) {
    let before = connection.total_changes();
    let begun = connection.execute_batch("BEGIN");
    let answers: Vec<Answer> = group.map(|job| job(connection)).collect();
    let committed = begun.and_then(|()| connection.execute_batch("COMMIT"));
    let committed = committed.map_err(Error::database("written"));
    if let Err(error) = &committed {
        tracing::error!(%error, "metadata is not kept");
        // It may be over already.
        let _ = connection.execute_batch("ROLLBACK");
    }
    if connection.total_changes() != before {
        // Full: it will be synced anyway.
        let _ = changed.try_send(());
    }
    for answer in answers {
        answer(committed.clone());
    }
}

/// The log is one file as long as the database is open.
fn sync(path: &Path, log: &Path, changes: &std_mpsc::Receiver<()>) {
    let (mut file, mut copier) = (None, None);
    while changes.recv().is_ok() {
        // Let what follows closely share the sync.
        std::thread::sleep(DURABLE_WITHIN);
        let done = match &file {
            Some(file) => File::sync_data(file),
            None => File::open(log).and_then(|opened| file.insert(opened).sync_data()),
        };
        if let Err(error) = done {
            tracing::error!(%error, log = %log.display(), "metadata is not on the disk");
        }
        if std::fs::metadata(log).is_ok_and(|log| log.len() > MAX_LOG)
            && let Err(error) = shorten(path, &mut copier)
        {
            tracing::error!(%error, "the log of the metadata can't be copied into the database");
        }
    }
}

/// Copies the log back into the database while it is used; both are synced on the way, on this thread and not on the other.
fn shorten(path: &Path, copier: &mut Option<Connection>) -> rusqlite::Result<()> {
    let connection = match copier {
        Some(connection) => connection,
        None => copier.insert(Connection::open(path)?),
    };
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
