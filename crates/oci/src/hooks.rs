//! Hooks of config.json: a program with a built environment, the container's state on its stdin, and a deadline.

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_sys::spawn::{self, Capture, Ended, Keep, Program};
use oci_spec::runtime::Hook;

use crate::error::OciError;

/// For a hook that config.json gives no timeout: long enough for any honest one, and an end for the others.
const NO_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Runs hooks in order; the first that fails ends the row.
pub(crate) fn run_all(point: &'static str, hooks: &[Hook], state: &str) -> Result<(), OciError> {
    for hook in hooks {
        run(hook, state).map_err(|reason| OciError::Hook {
            point,
            path: hook.path().display().to_string(),
            reason,
        })?;
    }
    Ok(())
}

fn run(hook: &Hook, state: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let deadline = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    // args[0] is the program's own name for itself: dockerd, which is its own hook, finds out by it what to do.
    let mut args = hook.args().iter().flatten().map(OsStr::new);
    let name = args.next();
    let args: Vec<&OsStr> = args.collect();
    let env: Vec<&str> = hook.env().iter().flatten().map(String::as_str).collect();
    // A file and not a pipe: a hook that never reads must not block the creator.
    let mut input = spawn::memory_file("state").map_err(text)?;
    input
        .write_all(state.as_bytes())
        .and_then(|()| input.rewind())
        .map_err(text)?;
    let null = berth_sys::file::dev_null().map_err(text)?;
    let (capture, errors) = Capture::new(Keep::Tail, 4096).map_err(text)?;
    let program = Program {
        path: hook.path(),
        name,
        args: &args,
        env: &env,
        stdio: [input.as_fd(), null.as_fd(), errors.as_fd()],
    };
    let running = spawn::spawn(&program).map_err(text)?;
    drop(errors);
    let mut captures = [capture];
    let ended = running
        .wait(Instant::now() + deadline.unwrap_or(NO_TIMEOUT), &mut captures)
        .map_err(text)?;
    let [capture] = captures;
    let said = String::from_utf8_lossy(&capture.into_parts().0).trim_end().to_owned();
    match ended {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(code) => Err(format!("exit status {code}: {said}")),
        Ended::Killed(signal) => Err(format!("killed by signal {signal}: {said}")),
        Ended::TooLate => Err(format!("did not end in {} s", deadline.unwrap_or(NO_TIMEOUT).as_secs())),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_hook_gets_its_arguments_as_they_are() {
        let file = std::env::temp_dir().join(format!("berth-oci-hook-{}", std::process::id()));
        let script = format!("(head -c 7 /proc/$$/cmdline; cat) > {}", file.display());
        let text = serde_json::json!({ "path": "/bin/sh", "args": ["another", "-c", script] });
        let mut hook: Hook = serde_json::from_value(text).expect("a hook");
        hook.set_env(Some(vec!["PATH=/usr/bin:/bin".to_owned()]));
        run_all("poststart", &[hook], "state").expect("run");
        assert_eq!(std::fs::read_to_string(&file).expect("written"), "anotherstate");
        std::fs::remove_file(file).expect("removed");
    }
}
