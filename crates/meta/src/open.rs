//! Opening: the file, its schema, and what is done with a file that is of no use.
//!
//! ```text
//! meta.db  meta.db-wal  meta.db-shm            set aside: meta.db.2026-11-24T13-05-00Z  …-wal  …-shm
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::engine::Meta;
use crate::error::Error;

/// What `user_version` says. A newer one is set aside: its rows may mean what we don't know.
const VERSION: i64 = 1;

/// How long another process with the database open may hold us up.
const BUSY: Duration = Duration::from_secs(5);

/// A larger file is not read whole at every start.
const MAX_CHECKED: u64 = 64 << 20;

const SCHEMA: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE namespace (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE container (
    namespace TEXT NOT NULL, id TEXT NOT NULL, image TEXT NOT NULL,
    runtime TEXT NOT NULL, options_type TEXT, options BLOB, spec_type TEXT, spec BLOB,
    snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL, sandbox TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id));
CREATE TABLE extension (
    namespace TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (namespace, container, name)) WITHOUT ROWID;
CREATE TABLE lease (
    namespace TEXT NOT NULL, id TEXT NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)) WITHOUT ROWID;
CREATE TABLE resource (
    namespace TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (namespace, lease, type, id)) WITHOUT ROWID;
CREATE TABLE image (
    namespace TEXT NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE blob (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)) WITHOUT ROWID;
CREATE INDEX blob_digest ON blob (digest);
-- kind: container, namespace, lease, image, annotation (of an image), blob.
CREATE TABLE label (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, id, key)) WITHOUT ROWID;
INSERT INTO about VALUES ('uuid', lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
    || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))));
";

/// Added since the first version; an older berthd does not look at it.
const ADDED: &str = "
CREATE TABLE IF NOT EXISTS kept (
    namespace TEXT NOT NULL, id TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (namespace, id)) WITHOUT ROWID;
";

pub struct Opened {
    pub meta: Meta,
    /// What was there and could not be used.
    pub set_aside: Option<SetAside>,
}

#[derive(Debug)]
pub struct SetAside {
    pub to: PathBuf,
    pub why: String,
}

/// Opens or makes the database. It fails where nothing can be made there, or another process holds it: not where what is there is broken.
pub fn open(path: &Path) -> Result<Opened, Error> {
    let (connection, set_aside) = match connect(path) {
        Ok(connection) => (connection, None),
        Err(Problem::Elsewhere(error)) => return Err(error),
        Err(Problem::Broken(why)) => {
            let to = set_aside(path)?;
            let connection = connect(path).map_err(|problem| match problem {
                Problem::Elsewhere(error) => error,
                Problem::Broken(why) => Error::Precondition(format!("{}: {why}", path.display())),
            })?;
            (connection, Some(SetAside { to, why }))
        }
    };
    Ok(Opened {
        meta: Meta::start(connection, path)?,
        set_aside,
    })
}

enum Problem {
    /// The file is of no use.
    Broken(String),
    /// The file may be good.
    Elsewhere(Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly,
            ) => Problem::Elsewhere(Error::database("opened")(error)),
            _ => Problem::Broken(error.to_string()),
        }
    }
}

fn connect(path: &Path) -> Result<Connection, Problem> {
    // Before SQLite touches anything: what it can't read, it may tidy away.
    let mut header = [0; 16];
    match File::open(path).and_then(|mut file| file.read(&mut header)) {
        Ok(n) if n > 0 && header != *b"SQLite format 3\0" => {
            return Err(Problem::Broken("it is not a database".into()));
        }
        _ => {}
    }
    // The log and its index take over the mode.
    let made = File::options().append(true).create(true).mode(0o600).open(path);
    made.map_err(|source| {
        Problem::Elsewhere(Error::Io {
            operation: "open",
            path: path.to_owned(),
            source: Arc::new(source),
        })
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // What turns out to be broken is to stay as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    // The log is synced beside (`engine`), and before it is copied back.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 1 << 20, |row| row.get::<_, i64>(0))?;
    connection.set_prepared_statement_cache_capacity(128);
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => {
            let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
            if tables != 0 {
                return Err(Problem::Broken("it is a database of something else".into()));
            }
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT"
            ))?;
        }
        VERSION => check(&connection, path)?,
        newer => {
            return Err(Problem::Broken(format!(
                "it is of version {newer}, newer than {VERSION}"
            )));
        }
    }
    connection.execute_batch(ADDED)?;
    Ok(connection)
}

fn check(connection: &Connection, path: &Path) -> Result<(), Problem> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_CHECKED) {
        return Ok(());
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        found => Err(Problem::Broken(found.to_owned())),
    }
}

/// Renames the database and what belongs to it.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = date(now.as_secs());
    let serial = (0..u32::MAX).map(|n| if n == 0 { String::new() } else { format!(".{n}") });
    let name = serial
        .map(|n| format!(".{date}{n}"))
        .find(|name| !beside(name).exists())
        .unwrap_or_default();
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(suffix), beside(&format!("{name}{suffix}")));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io {
                    operation: "set aside",
                    path: from,
                    source: Arc::new(error),
                });
            }
            _ => {}
        }
    }
    Ok(beside(&name))
}

/// Seconds since the epoch as a date that a file name can hold, by the database's own calendar; the seconds if it can't tell.
fn date(seconds: u64) -> String {
    let told = Connection::open_in_memory().and_then(|connection| {
        let text = "SELECT strftime('%Y-%m-%dT%H-%M-%SZ', ?1, 'unixepoch')";
        connection.query_row(text, [i64::try_from(seconds).unwrap_or(i64::MAX)], |row| row.get(0))
    });
    told.unwrap_or_else(|_| seconds.to_string())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01T00-00-00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23-59-59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00-00-00Z");
        assert_eq!(date(1_795_527_900), "2026-11-24T13-45-00Z");
    }
}
