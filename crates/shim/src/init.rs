//! The first process of a container that asked for one: it starts the container's command as its child, passes signals on, reaps what
//! is orphaned, and ends with the child's code. This program under another name, inside the container, where nothing is known of Berth.
//!
//! Invariants: the child begins with every signal at its default, in a process group of its own that has the terminal, so that what is
//! typed reaches it once; nothing is polled.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use berth_sys::process::{self, Fork, SignalFd};
use berth_sys::{execve, file, pty, signal};

/// Of the file inside the container, by which the program knows that it is this.
pub const NAME: &str = "berth-init";

/// Looked through where the environment names no PATH.
const FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Whether this program was started as the init; `argument` is the one with number 0.
pub fn is_meant(argument: Option<&OsString>) -> bool {
    argument.is_some_and(|path| Path::new(path).file_name() == Some(OsStr::new(NAME)))
}

/// Until the command has ended; answers its code. `arguments` begin with `--`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    let arguments = arguments.skip_while(|argument| argument == "--");
    let command: Result<Vec<CString>, _> = arguments.map(|argument| CString::new(argument.into_vec())).collect();
    let Ok(command) = command else { return NOT_FOUND };
    match serve(&command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            NOT_EXECUTABLE
        }
    }
}

fn serve(command: &[CString]) -> io::Result<u8> {
    // Where the container has no pid namespace of its own, orphans come here only so.
    process::set_child_subreaper()?;
    // What the kernel raises for a fault of this process's own can't be passed on.
    let faults = ["ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "SYS"].map(signal::by_name);
    let all: Vec<i32> = (1..=64)
        .filter(|number| !faults.contains(&Some(*number)) && !matches!(number, 32 | 33))
        .filter(|number| !matches!(*number, signal::SIGKILL | signal::SIGSTOP))
        .collect();
    let signals = SignalFd::block(&all)?;
    file::set_nonblocking(&signals, false)?;
    let child = match process::fork()? {
        Fork::Child => process::exit_now(become_command(command).into()),
        Fork::Parent { pid } => pid,
    };
    let pidfd = process::pidfd_open(child)?;
    loop {
        match signals.read()? {
            Some(signal::SIGCHLD) => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            // It has just ended: that is on its way.
            Some(number) => drop(process::pidfd_send_signal(&pidfd, number)),
            None => {}
        }
    }
}

/// All that have ended; the code of `child` if it is one of them.
fn reap(child: u32) -> io::Result<Option<u8>> {
    let mut code = None;
    while let Some((pid, ended)) = process::peek()? {
        process::reap(pid)?;
        if pid == child {
            code = Some(u8::try_from(ended.code()).unwrap_or(u8::MAX));
        }
    }
    Ok(code)
}

/// In the child. Returns only if the command can't be executed.
fn become_command(command: &[CString]) -> u8 {
    let prepared = process::start_process_group().and_then(|()| {
        // SIGTTOU is still blocked here. Without a terminal there is nothing to have.
        if pty::is_terminal(io::stdin()) {
            let _ = pty::set_foreground(io::stdin());
        }
        process::reset_signals()
    });
    let error = prepared.err().unwrap_or_else(|| execute(command));
    let name = command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    eprintln!("{NAME}: {name}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

/// As execvp(3).
fn execute(command: &[CString]) -> io::Error {
    // ENOENT
    let missing = || io::Error::from_raw_os_error(2);
    let Some(name) = command.first().filter(|name| !name.is_empty()) else {
        return missing();
    };
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
        CString::new(entry).ok()
    });
    let environment: Vec<CString> = environment.collect();
    if name.as_bytes().contains(&b'/') {
        return execve::replace(name, command, &environment);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| FOLDERS.into());
    let mut last = missing();
    for folder in std::env::split_paths(&path) {
        let program = folder.join(OsStr::from_bytes(name.as_bytes()));
        let Ok(program) = CString::new(program.into_os_string().into_vec()) else {
            continue;
        };
        let error = execve::replace(&program, command, &environment);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            // A later one may do.
            io::ErrorKind::PermissionDenied => last = error,
            _ => return error,
        }
    }
    last
}
