//! Tables for the terminal that are Markdown too, so that a run can be pasted into the documentation.

pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            // Names to the left, numbers to the right.
            let pad = |(cell, width): (&String, &usize)| format!("{cell:>width$}");
            let first = format!("{:<1$}", row[0], widths[0]);
            let rest = row.iter().zip(&widths).skip(1).map(pad);
            let cells: Vec<String> = std::iter::once(first).chain(rest).collect();
            text += &format!("| {} |\n", cells.join(" | "));
            if index == 0 {
                let line = widths.iter().enumerate().map(|(column, width)| {
                    if column == 0 {
                        "-".repeat(*width)
                    } else {
                        format!("{}:", "-".repeat(width.saturating_sub(1)))
                    }
                });
                text += &format!("| {} |\n", line.collect::<Vec<_>>().join(" | "));
            }
        }
        text
    }
}

/// A number with as many digits as say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
