//! `berth logs`. Goes on by the last entry's cursor when berthd is restarted, so that a follower misses and repeats nothing.

use std::time::SystemTime;

use berth_client::{Client, Logs};
use berth_wire::v1::{GetRequest, GetResponse, LogEntry, LogsRequest, Stream, stdio::To};
use clap::{Args, ValueEnum};
use rustix::stdio::{stderr, stdout};
use tokio::task::JoinSet;

use super::Context;
use crate::complete;
use crate::error::{CliError, Result};
use crate::out::{self, Out, complain};
use crate::{human, json, term};

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Of several each line is led by its container's id
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// Stay until the container has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// From this time on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Show the time of each line
    #[arg(long, short)]
    pub timestamps: bool,
    /// Only this stream
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Which>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    Stdout,
    Stderr,
}

pub async fn logs(context: &Context, args: LogsArgs) -> Result<u8> {
    let now = SystemTime::now();
    let time = |option: &str, text: Option<String>| match text {
        Some(text) => {
            human::parse_time(&text, now).map_err(|error| CliError::Usage(format!("--{option} {text}: {error}")))
        }
        None => Ok(0),
    };
    let request = LogsRequest {
        namespace: context.namespace.clone(),
        id: String::new(),
        follow: args.follow,
        tail: args.tail,
        since: time("since", args.since)?,
        until: time("until", args.until)?,
        cursor: String::new(),
        streams: args
            .stream
            .map(|which| match which {
                Which::Stdout => Stream::Stdout.into(),
                Which::Stderr => Stream::Stderr.into(),
            })
            .into_iter()
            .collect(),
    };
    let client = context.client().await?;
    let several = args.ids.len() > 1;
    let width = args.ids.iter().map(String::len).max().unwrap_or(0);
    let coloured = out::coloured();
    let mut readers = JoinSet::new();
    for (number, id) in args.ids.into_iter().enumerate() {
        let printer = Printer {
            out: context.out,
            id: several.then(|| id.clone()),
            label: label(several, &id, width, coloured.then_some(number)),
            timestamps: args.timestamps,
            at_line_start: [true; 2],
        };
        let request = LogsRequest { id, ..request.clone() };
        let client = client.clone();
        readers.spawn(async move {
            let id = request.id.clone();
            if !show(client.logs(request), printer).await? {
                explain_silence(&client, &id).await;
            }
            Ok(())
        });
    }
    let mut code = 0;
    while let Some(ended) = readers.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) if several && !matches!(error, CliError::StdoutClosed) => {
                error.report(context.out.json);
                code = 1;
            }
            Ok(Err(error)) => return Err(error),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(code)
}

/// Answers whether there was anything.
async fn show(mut logs: Logs, mut printer: Printer) -> Result<bool> {
    let mut any = false;
    while let Some(first) = logs.next().await? {
        any = true;
        let mut entries = vec![first];
        entries.extend(logs.ready());
        printer.print(&entries)?;
    }
    Ok(any)
}

/// It may have written nothing, or what it wrote is kept nowhere.
async fn explain_silence(client: &Client, id: &str) {
    let request = GetRequest {
        namespace: client.namespace.clone(),
        id: id.to_owned(),
        processes: false,
    };
    let Ok(GetResponse {
        container: Some(container),
    }) = client.get(request).await
    else {
        return;
    };
    if let Some(To::Log(log)) = container.stdio.and_then(|stdio| stdio.to)
        && log.discard
    {
        complain(&format!(
            "{id} keeps no log: it was started with --log-format none (`berth attach {id}` shows what it writes)"
        ));
    }
}

/// What leads a line of one of several containers.
fn label(several: bool, id: &str, width: usize, number: Option<usize>) -> String {
    // Those that are read well on black and on white.
    const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
    match (several, number) {
        (false, _) => String::new(),
        (true, None) => format!("{id:width$} | "),
        (true, Some(number)) => format!("\x1b[{}m{id:width$} |\x1b[0m ", COLOURS[number % COLOURS.len()]),
    }
}

struct Printer {
    out: Out,
    /// In JSON, of several.
    id: Option<String>,
    label: String,
    timestamps: bool,
    /// Of stdout and of stderr: a line may come in pieces, and has one time.
    at_line_start: [bool; 2],
}

impl Printer {
    fn print(&mut self, entries: &[LogEntry]) -> Result<()> {
        if self.out.json {
            let lines: String = entries
                .iter()
                .map(|entry| {
                    let mut object = json::log_entry(entry);
                    if let Some(id) = &self.id {
                        object["id"] = id.clone().into();
                    }
                    format!("{object}\n")
                })
                .collect();
            return self.out.bytes(lines.as_bytes());
        }
        // Runs of one stream are written at once; their order is the log's.
        for run in entries.chunk_by(|one, next| one.stream == next.stream && !next.gap) {
            let Some(first) = run.first() else { continue };
            if first.gap {
                complain("lines are missing here: the log was rotated before they could be read");
            }
            let text = self.format(run);
            match first.stream() {
                // A closed stderr ends nothing.
                Stream::Stderr => drop(term::write_all(stderr(), &text)),
                Stream::Stdout | Stream::Unspecified => term::write_all(stdout(), &text).map_err(CliError::stdout)?,
            }
        }
        Ok(())
    }

    fn format(&mut self, run: &[LogEntry]) -> Vec<u8> {
        let mut text = Vec::new();
        for entry in run {
            let at_line_start = &mut self.at_line_start[usize::from(entry.stream() == Stream::Stderr)];
            let begins = *at_line_start && !entry.data.is_empty();
            if begins {
                text.extend_from_slice(self.label.as_bytes());
            }
            if self.timestamps && begins {
                text.extend_from_slice(human::rfc3339(entry.time).unwrap_or_else(|| "-".into()).as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(&entry.data);
            if let Some(&last) = entry.data.last() {
                *at_line_start = last == b'\n';
            }
        }
        text
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_line_in_pieces_has_one_time() {
        let entry = |data: &'static str| LogEntry {
            time: 1_500_000_000,
            stream: Stream::Stdout as i32,
            data: data.as_bytes().into(),
            ..Default::default()
        };
        let mut printer = Printer {
            out: Out { json: false },
            id: None,
            label: label(true, "web", 5, None),
            timestamps: true,
            at_line_start: [true; 2],
        };
        let text = printer.format(&[entry("one "), entry("line\n"), entry("two\n")]);
        assert_eq!(
            String::from_utf8_lossy(&text),
            "web   | 1970-01-01T00:00:01.500000000Z one line\nweb   | 1970-01-01T00:00:01.500000000Z two\n"
        );
    }
}
