//! The files of one log: `log`, and `log.1` (the newest) to `log.N` that were rotated away.
//!
//! A file's length is known from the ring's progress, not from the file: what a killed writer or a failed write left behind
//! it is cut off before anything else is written.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use berth_core::LogFormat as Format;
use berth_record::log::ENTRY_LIMIT;
use berth_sys::dir;
use berth_sys::file::{self, Open};

const NAME: &str = "log";

#[derive(Debug)]
pub struct Log {
    folder: OwnedFd,
    file: File,
    pub len: u64,
    pub inode: u64,
}

impl Log {
    /// Opens the log in `path`, making what is missing. `known` is the inode and length that the progress tells of, (0, 0) for
    /// a ring's first writer.
    pub fn open(path: &Path, format: Format, known: (u64, u64)) -> io::Result<Log> {
        let folder = dir::make_all(path, 0o700)?;
        let mut log = Log::open_current(folder)?;
        match known {
            (0, _) => log.repair(format)?,
            (inode, len) if inode == log.inode && log.len > len => log.cut_to(len)?,
            // Another file: the last writer ended in the middle of a rotation, and the new one is still empty.
            _ => {}
        }
        Ok(log)
    }

    fn open_current(folder: OwnedFd) -> io::Result<Log> {
        let file = match file::create_new_at(&folder, NAME, Open::ReadWrite, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                file::open_at(&folder, NAME, Open::ReadWrite)?
            }
            made => made?,
        };
        let file = File::from(file);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the log is not a regular file",
            ));
        }
        Ok(Log {
            folder,
            file,
            len: meta.len(),
            inode: meta.ino(),
        })
    }

    /// Appends all of `bytes`, or nothing.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Somebody may have emptied the file by hand: no hole of zeros then.
        self.len = self.len.min(self.file.metadata()?.len());
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part may stand there. If it can't be cut off now, the next write goes over it.
                let _ = self.cut_to(self.len);
                Err(error)
            }
        }
    }

    /// Makes `log` the newest rotated file and begins a new one. `keep` counts the current one too.
    pub fn rotate(&mut self, keep: u32) -> io::Result<()> {
        if keep <= 1 {
            file::unlink_at(&self.folder, NAME)?;
        } else {
            // Up to the first gap only: a rotation that was broken off has moved those behind it already.
            let mut last = 1;
            while last < keep - 1 && file::exists_at(&self.folder, numbered(last))? {
                last += 1;
            }
            for number in (1..last).rev() {
                file::rename_at(&self.folder, numbered(number), numbered(number + 1))?;
            }
            file::rename_at(&self.folder, NAME, numbered(1))?;
        }
        let folder = file::duplicate(self.folder.as_fd())?;
        *self = Log::open_current(folder)?;
        Ok(())
    }

    fn cut_to(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// A file from before this ring may end within an entry (the machine stopped): then what is there of it is cut off, so
    /// that the next entry begins on a line of its own.
    fn repair(&mut self, format: Format) -> io::Result<()> {
        if format == Format::Plain || self.len == 0 {
            return Ok(());
        }
        let looked_at = self.len.min(ENTRY_LIMIT as u64);
        let mut tail = vec![0; looked_at as usize];
        self.file.read_exact_at(&mut tail, self.len - looked_at)?;
        let torn = tail.iter().rev().take_while(|&&byte| byte != b'\n').count() as u64;
        match torn {
            0 => Ok(()),
            // Not a file of ours then: leave it as it is, and begin on a new line.
            torn if torn == looked_at && looked_at < self.len => self.append(b"\n"),
            torn => self.cut_to(self.len - torn),
        }
    }
}

fn numbered(number: u32) -> String {
    format!("{NAME}.{number}")
}
