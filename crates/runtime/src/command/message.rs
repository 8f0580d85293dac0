//! From what a runtime wrote to the one line that the user sees, and what kind of failure it tells of.
//!
//! Runtimes have no error codes, so the code comes from their words. Texts are quoted in the tests beside the version that
//! they were taken from; a text that nobody knows is [`ErrorCode::Runtime`], never a guess.

use std::path::Path;

use berth_core::ErrorCode;
use serde::Deserialize;

const LINE_LIMIT: usize = 4096;

/// One line of a log written with `--log-format json`.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    level: String,
    msg: String,
}

/// The last error of the log; without one the last entry, then the last line on stderr.
pub(super) fn last_line(log: &[u8], stderr: &[u8]) -> String {
    let mut last = None;
    for line in log.split(|&byte| byte == b'\n').rev() {
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            if matches!(entry.level.as_str(), "error" | "fatal" | "panic") {
                return one_line(&entry.msg);
            }
            last.get_or_insert(entry.msg);
        }
    }
    let text = String::from_utf8_lossy(stderr);
    let said = text.lines().rev().find(|line| !line.trim().is_empty());
    one_line(said.or(last.as_deref()).unwrap_or_default())
}

/// Fit for a terminal and an error message: no control characters, bounded.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars() {
        if line.len() >= LINE_LIMIT {
            line.push('…');
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
    }
    line
}

/// What a refusal means.
pub(super) fn code(operation: &str, root: &Path, id: &str, line: &str) -> ErrorCode {
    let line = line.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    let missing = has(&["not found", "no such file"]);
    if matches!(operation, "create" | "start" | "exec") {
        let about_command = has(&["executable", "exec: \"", "exec container process", "exec user process"]);
        if about_command && missing {
            return ErrorCode::CommandNotFound;
        }
        if about_command
            && has(&[
                "permission",
                "not permitted",
                "exec format error",
                "is a directory",
                "not executable",
            ])
        {
            return ErrorCode::CommandNotExecutable;
        }
    }
    if has(&[
        "no space left",
        "too many open files",
        "cannot allocate memory",
        "resource temporarily unavailable",
    ]) {
        return ErrorCode::Resources;
    }
    if operation == "create" {
        return if has(&["id already exists", &already_exists(id)]) {
            ErrorCode::AlreadyExists
        } else {
            ErrorCode::Runtime
        };
    }
    // crun removes this file when the container starts.
    if has(&["/exec.fifo`"]) {
        return ErrorCode::WrongState;
    }
    let folder = root.join(id).display().to_string().to_lowercase();
    let status = format!("/{}/status`", id.to_lowercase());
    let unknown = has(&["container does not exist", "file does not exist", "could not be found"])
        || line.contains("container") && line.contains("does not exist");
    if unknown
        || missing
            && has(&[
                &format!("{folder}'"),
                &format!("{folder}`"),
                &format!("{folder}/status"),
                &status,
            ])
    {
        return ErrorCode::NotFound;
    }
    if has(&[
        "not running",
        "already running",
        "already started",
        "not paused",
        "already paused",
        "not stopped",
        "is not in",
        "stopped container",
        "in stopped state",
        "paused container",
        "cannot start",
        "no such process",
        "already finished",
        "incorrect container state",
    ]) {
        return ErrorCode::WrongState;
    }
    ErrorCode::Runtime
}

/// crun names the container where runc does not.
fn already_exists(id: &str) -> String {
    format!("container `{}` already exists", id.to_lowercase())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn words_become_codes() {
        use ErrorCode::*;
        let told = |operation: &str, line: &str| code(operation, Path::new("/r"), "xx", line);
        // runc 1.1.5
        let runc = "unable to start container process: ";
        assert_eq!(
            told(
                "exec",
                &format!("{runc}exec: \"nope\": executable file not found in $PATH")
            ),
            CommandNotFound
        );
        assert_eq!(
            told(
                "create",
                &format!("{runc}exec: \"/n\": stat /n: no such file or directory")
            ),
            CommandNotFound
        );
        assert_eq!(
            told("create", &format!("{runc}exec: \"/bin/x\": permission denied")),
            CommandNotExecutable
        );
        assert_eq!(told("start", "cannot start an already running container"), WrongState);
        assert_eq!(told("pause", "container not running"), WrongState);
        assert_eq!(told("resume", "container not paused"), WrongState);
        assert_eq!(told("exec", "cannot exec in a stopped container"), WrongState);
        assert_eq!(
            told("delete", "cannot delete container xx that is not stopped: running"),
            WrongState
        );
        assert_eq!(told("delete", "container does not exist"), NotFound);
        assert_eq!(
            told("create", "runc create failed: container with given ID already exists"),
            AlreadyExists
        );
        assert_eq!(
            told("create", "runc create failed: rootfs (/b/rootfs) does not exist"),
            Runtime
        );
        assert_eq!(told("kill", "unable to signal init: invalid argument"), Runtime);
        assert_eq!(
            told("create", "write /run/runc/xx/state.json: no space left on device"),
            Resources
        );
        // crun 1.8.1
        assert_eq!(
            told(
                "exec",
                "executable file `/n` not found in $PATH: No such file or directory"
            ),
            CommandNotFound
        );
        assert_eq!(told("exec", "open executable: Permission denied"), CommandNotExecutable);
        assert_eq!(
            told("create", "open executable: Operation not permitted"),
            CommandNotExecutable
        );
        assert_eq!(
            told("start", "cannot open `/r/xx/exec.fifo`: No such file or directory"),
            WrongState
        );
        assert_eq!(
            told("kill", "error opening file `/r/xx/status`: No such file or directory"),
            NotFound
        );
        assert_eq!(
            told("delete", "cannot open directory '/r/xx': No such file or directory"),
            NotFound
        );
        assert_eq!(
            told("delete", "the container `xx` is not in `created` or `stopped` state"),
            WrongState
        );
        assert_eq!(told("create", "container `xx` already exists"), AlreadyExists);
        assert_eq!(
            told(
                "create",
                "error opening file `/b/config.json`: No such file or directory"
            ),
            Runtime
        );
    }

    #[test]
    fn the_last_error_of_the_log_counts() {
        let log = b"{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"sec\\nond\"}\n{\"level\":\"debug\",\"msg\":\"bye\"}\n";
        assert_eq!(last_line(log, b"x"), "sec\\nond");
        assert_eq!(last_line(b"{\"level\":\"warning\",\"msg\":\"hm\"}\n", b""), "hm");
        assert_eq!(
            last_line(b"garbage \xff\n{\"level", b"one\ntwo \x1b[31m\n\n"),
            "two \\u{1b}[31m"
        );
        assert_eq!(last_line(b"", b""), "");
        assert!(one_line(&"x".repeat(1 << 20)).len() < 5000);
    }
}
