//! `berthd doctor [--fix] [--json]`: what is wrong with this daemon's state, with or without a daemon; and the same look once a
//! daemon has adopted all that it found.
//!
//! Exit codes: 0 nothing is wrong (any more), 1 something is, 2 the configuration can't be read.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_doctor::{Finding, Mended, examine, mend};
use berth_record::{Layout, Lock};
use berth_supervisor::Supervisor;

use crate::cli::{DoctorArgs, Flags};
use crate::config::Config;
use crate::error::Error;

/// Beside a daemon, what is gone after this time was its work and not a defect.
const PASSING: Duration = Duration::from_secs(1);

pub fn run(flags: &Flags, args: &DoctorArgs) -> Result<ExitCode, Error> {
    let config = Config::load(flags)?;
    let layout = Layout::new(&config.state, &config.root);
    if !layout.state().exists() {
        say(&format!(
            "{}: there is no such state folder, so nothing was looked at; --state names that of another daemon\n",
            layout.state().display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Held until the end: no daemon starts into what is being mended.
    let (alone, found) = match layout.lock() {
        Ok(lock) => (Some(lock), examine(&layout)?),
        Err(berth_record::Error::Locked { .. }) => {
            let found = lasting(&layout)?;
            (None, found.into_iter().chain(deaf(&config)).collect())
        }
        Err(error) => return Err(berth_doctor::Error::from(error).into()),
    };
    let mut left = 0;
    for finding in &found {
        let mended = if args.fix {
            mend(&layout, finding, alone.as_ref())
        } else {
            Ok(Mended::Left)
        };
        left += usize::from(!matches!(mended, Ok(Mended::Done(_))));
        let advice = advice(finding, &fix_command(flags.config.as_deref(), &layout));
        say(&if args.json {
            json(finding, &mended, advice)
        } else {
            words(finding, &mended, &advice)
        })?;
    }
    if !args.json {
        say(&summary(found.len(), left, alone.as_ref()))?;
    }
    Ok(if left == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Beside a daemon at work: what two looks have in common.
fn lasting(layout: &Layout) -> Result<Vec<Finding>, berth_doctor::Error> {
    let first = examine(layout)?;
    if first.is_empty() {
        return Ok(first);
    }
    // What is looked for is that nothing changes: no event tells that.
    std::thread::sleep(PASSING);
    let second = examine(layout)?;
    // A disk's free bytes change all the time.
    let lasts = |finding: &Finding| matches!(finding, Finding::AlmostFull { .. }) || first.contains(finding);
    Ok(second.into_iter().filter(lasts).collect())
}

/// Whether the daemon that holds the state folder takes connections.
fn deaf(config: &Config) -> Option<Finding> {
    let error = UnixStream::connect(&config.address).err()?;
    Some(Finding::Deaf {
        address: config.address.clone(),
        problem: error.to_string(),
    })
}

type Outcome = Result<Mended, berth_doctor::Error>;

/// How this state is mended: the command with the options that name it.
fn fix_command(config: Option<&Path>, layout: &Layout) -> String {
    let defaults = [
        (layout.state(), "--state", "/run/berth"),
        (layout.root(), "--root", "/var/lib/berth"),
    ];
    let mut command = String::from("berthd");
    if let Some(config) = config {
        command += &format!(" --config {}", config.display());
    }
    for (folder, option, _) in defaults
        .iter()
        .filter(|(folder, _, default)| *folder != Path::new(default))
    {
        command += &format!(" {option} {}", folder.display());
    }
    command + " doctor --fix"
}

fn advice(finding: &Finding, fix: &str) -> String {
    finding.advice().replace("berthd doctor --fix", fix)
}

fn words(finding: &Finding, mended: &Outcome, advice: &str) -> String {
    match mended {
        Ok(Mended::Done(done)) => format!("{finding}\n  mended: {done}\n"),
        Ok(Mended::Left) => format!("{finding}\n  {advice}\n"),
        Err(error) => format!("{finding}\n  not mended: {error}\n"),
    }
}

/// One object a line: the finding's own fields, `words`, and `mended` or `advice`.
fn json(finding: &Finding, mended: &Outcome, advice: String) -> String {
    let mut object = serde_json::to_value(finding).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("words".into(), finding.to_string().into());
        let (name, text) = match mended {
            Ok(Mended::Done(done)) => ("mended", done.clone()),
            Ok(Mended::Left) => ("advice", advice),
            Err(error) => ("error", error.to_string()),
        };
        fields.insert(name.into(), text.into());
    }
    format!("{object}\n")
}

fn summary(found: usize, left: usize, alone: Option<&Lock>) -> String {
    let daemon = if alone.is_some() {
        "no daemon runs here"
    } else {
        "a daemon is at work"
    };
    match (found, left) {
        (0, _) => format!("nothing is wrong ({daemon})\n"),
        (found, 0) => format!("{found} found, all mended ({daemon})\n"),
        (found, left) => format!("{found} found, {left} left ({daemon})\n"),
    }
}

fn say(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Error::Io {
            operation: "print",
            what: "to stdout".into(),
            source,
        })
}

/// Once per start, when adoption has ended: what it could not settle stands in the log by name.
pub async fn at_start(supervisor: Supervisor, layout: Layout) {
    supervisor.adopted().await;
    let fix = fix_command(None, &layout);
    let looked = tokio::task::spawn_blocking(move || lasting(&layout));
    match looked.await {
        Ok(Ok(found)) => {
            for finding in found {
                tracing::warn!(advice = advice(&finding, &fix), "{finding}");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "the state could not be examined"),
        // The daemon ends.
        Err(_) => {}
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn advice_names_the_state_that_was_looked_at() {
        let finding = Finding::Leftover { path: "/x".into() };
        let usual = fix_command(None, &Layout::new(Path::new("/run/berth"), Path::new("/var/lib/berth")));
        assert!(advice(&finding, &usual).contains("`berthd doctor --fix`"));
        let other = fix_command(
            Some(Path::new("/c.toml")),
            &Layout::new(Path::new("/s"), Path::new("/r")),
        );
        assert!(advice(&finding, &other).contains("`berthd --config /c.toml --state /s --root /r doctor --fix`"));
    }
}
