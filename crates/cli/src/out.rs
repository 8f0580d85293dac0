//! Everything that goes to stdout and stderr of commands without a session: lines, JSON, tables.
//! Nothing here panics on a closed stream: stdout gives `StdoutClosed`, and stderr is told in vain.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::term;

/// Home, and clear from there.
pub const REDRAW: &[u8] = b"\x1b[H\x1b[2J";

#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub json: bool,
}

impl Out {
    pub fn line(self, text: &str) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(CliError::stdout)
    }

    /// One object on one line.
    pub fn object(self, value: &Value) -> Result<()> {
        self.line(&value.to_string())
    }

    /// A document of its own: indented, for it is read by people too.
    pub fn document(self, value: &Value) -> Result<()> {
        self.line(&format!("{value:#}"))
    }

    /// As wide as the terminal; whole when stdout is anything else.
    pub fn table(self, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        let width = if io::stdout().is_terminal() {
            term::size().map(|(width, _)| width)
        } else {
            None
        };
        self.line(&render(header, rows, width))
    }
}

/// Columns two spaces apart, no lines, one line a row, cut to `width`.
pub fn render(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for cells in rows {
        // A control character in a label or a path must not reach the terminal.
        let cells = cells.into_iter().map(|cell| {
            cell.chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect::<String>()
        });
        let mut row = comfy_table::Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Whether colours are wanted: a terminal, and no `NO_COLOR` (<https://no-color.org>).
pub fn coloured() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// A line for stderr; in raw mode a newline alone would not return the carriage.
pub fn stderr_line(text: &str) {
    let end = if term::is_raw() { "\r\n" } else { "\n" };
    let _ = io::stderr().lock().write_all(format!("{text}{end}").as_bytes());
}

pub fn complain(text: &str) {
    stderr_line(&format!("berth: {text}"));
}

#[cfg(test)]
mod test {
    use super::*;

    fn sample() -> Vec<Vec<String>> {
        vec![
            vec!["web".into(), "running 3 minutes".into(), "/srv/bundles/web".into()],
            vec!["a-longer-id".into(), "exited (0)".into(), "/b\n".into()],
        ]
    }

    #[test]
    fn piped_tables_are_whole_and_aligned() {
        assert_eq!(
            render(&["ID", "STATUS", "BUNDLE"], sample(), None),
            "ID           STATUS             BUNDLE\n\
             web          running 3 minutes  /srv/bundles/web\n\
             a-longer-id  exited (0)         /b?"
        );
        assert_eq!(render(&["ID"], Vec::new(), None), "ID");
    }

    #[test]
    fn narrow_terminals_get_one_line_a_row() {
        let text = render(&["ID", "STATUS", "BUNDLE"], sample(), Some(36));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 36), "{text}");
    }
}
