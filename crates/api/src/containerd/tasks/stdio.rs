//! Where a process's stdio goes, as containerd's clients name it: paths of FIFOs, or one URI for the output.

use std::path::PathBuf;

use berth_core::{FifoSpec, LoggerSpec, Stdio, StdioTo, TerminalSize};
use tonic::Status;

fn invalid(message: String) -> Status {
    Status::invalid_argument(format!("{message}: invalid argument"))
}

pub fn parse(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Stdio, Status> {
    let to = match stdout.split_once("://") {
        None | Some(("fifo", _)) => {
            let path = |text: &str| {
                let text = text.strip_prefix("fifo://").unwrap_or(text);
                (!text.is_empty()).then(|| PathBuf::from(text))
            };
            let fifo = FifoSpec {
                stdin: path(stdin),
                stdout: path(stdout),
                stderr: path(stderr).filter(|_| !terminal),
                owner: None,
            };
            if let Some(path) = [&fifo.stdin, &fifo.stdout, &fifo.stderr]
                .into_iter()
                .flatten()
                .find(|path| !path.is_absolute())
            {
                return Err(invalid(format!("{} is not an absolute path", path.display())));
            }
            match fifo {
                FifoSpec {
                    stdin: None,
                    stdout: None,
                    stderr: None,
                    ..
                } => StdioTo::Null,
                fifo => StdioTo::Fifo(fifo),
            }
        }
        Some(("file", rest)) => StdioTo::File(path_and_query(rest)?.0),
        Some((scheme @ ("binary" | "binary-v2"), rest)) => {
            let (program, args) = path_and_query(rest)?;
            StdioTo::Logger(LoggerSpec {
                program,
                args,
                strict: scheme == "binary-v2",
            })
        }
        Some((scheme, _)) => return Err(invalid(format!("unknown stdio scheme {scheme:?}"))),
    };
    Ok(Stdio {
        to,
        terminal,
        size: TerminalSize::default(),
    })
}

/// The path, and the query's pairs one after the other.
fn path_and_query(rest: &str) -> Result<(PathBuf, Vec<String>), Status> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut args: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Of a name that comes twice the first value counts.
        let name = decode(name)?;
        if args.iter().step_by(2).all(|known| *known != name) {
            args.extend([name, decode(value)?]);
        }
    }
    Ok((decode(path)?.into(), args))
}

/// Undoes what a URI escapes.
fn decode(text: &str) -> Result<String, Status> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(escaped.ok_or_else(|| invalid(format!("{text:?}: a bad escape")))?);
                rest = &after[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid(format!("{text:?} is not UTF-8")))
}

/// stdin, stdout, stderr as a client may give them again.
pub fn paths(stdio: &Stdio) -> [String; 3] {
    let text = |path: &Option<PathBuf>| {
        path.as_ref()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    match &stdio.to {
        StdioTo::Fifo(fifo) => [text(&fifo.stdin), text(&fifo.stdout), text(&fifo.stderr)],
        StdioTo::File(path) => {
            let uri = format!("file://{}", path.display());
            [String::new(), uri.clone(), uri]
        }
        StdioTo::Logger(logger) => {
            let scheme = if logger.strict { "binary-v2" } else { "binary" };
            let uri = format!("{scheme}://{}", logger.program.display());
            [String::new(), uri.clone(), uri]
        }
        StdioTo::Null | StdioTo::Log(_) => Default::default(),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn fifos_and_uris() {
        let to = |stdout: &str| parse("", stdout, "", false).map(|stdio| stdio.to);
        assert_eq!(to("").expect("null"), StdioTo::Null);
        let fifo = parse("/i", "/o", "/e", true).expect("fifos");
        assert_eq!(
            paths(&fifo),
            ["/i", "/o", ""].map(String::from),
            "a terminal has no stderr"
        );
        assert_eq!(
            to("file:///var/a%20b").expect("a file"),
            StdioTo::File("/var/a b".into())
        );
        let StdioTo::Logger(logger) = to("binary:///bin/log?id=1&x=a%3Db&id=2").expect("a logger") else {
            panic!("a logger expected")
        };
        assert_eq!(logger.args, ["id", "1", "x", "a=b"]);
        for wrong in ["ttrpc+unix://x", "o", "file:///%zz"] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }
}
