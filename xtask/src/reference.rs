//! `docs/api.md`, made of `supervisor.proto`: each call, message and enum with its comments. The lint holds it current.
//!
//! Reads the file's lines, not its grammar: it is our own and laid out in one way. A line that fits no rule is a complaint.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const PROTO: &str = "crates/wire/proto/berth/v1/supervisor.proto";
const PAGE: &str = "docs/api.md";

/// Complaints about the page, or none after it was written.
pub fn run(root: &Path, write: bool) -> Result<Vec<String>, String> {
    let read = |name: &str| fs::read_to_string(root.join(name)).map_err(|e| format!("cannot read {name}: {e}"));
    let page = render(&read(PROTO)?)?;
    if write {
        fs::write(root.join(PAGE), page).map_err(|e| format!("cannot write {PAGE}: {e}"))?;
        return Ok(Vec::new());
    }
    Ok(if read(PAGE).is_ok_and(|there| there == page) {
        Vec::new()
    } else {
        vec![format!(
            "{PAGE} is not what {PROTO} says: cargo xtask reference --write"
        )]
    })
}

/// A row of a table: what it is called, its type or number, what its comment says.
struct Row {
    name: String,
    kind: String,
    says: String,
}

struct Section {
    title: String,
    says: String,
    head: [&'static str; 2],
    rows: Vec<Row>,
}

fn render(proto: &str) -> Result<String, String> {
    let mut sections: Vec<Section> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut preamble = String::new();
    let mut choice: Option<String> = None;
    let mut depth = 0;
    for (number, line) in proto.lines().enumerate() {
        let at = |what: &str| format!("{PROTO}:{}: {what}: {line}", number + 1);
        let text = line.trim();
        if let Some(said) = text.strip_prefix("//") {
            // A ruler between parts of the file says nothing.
            if !said.trim_start().starts_with("---") {
                comment.push(said.strip_prefix(' ').unwrap_or(said));
            }
            continue;
        }
        if text.is_empty() {
            comment.clear();
            continue;
        }
        if text.starts_with("syntax") {
            preamble = paragraph(&comment, "\n");
        }
        let words: Vec<&str> = text.split([' ', '(', ')']).filter(|word| !word.is_empty()).collect();
        let says = paragraph(&comment, " ");
        comment.clear();
        match words[..] {
            ["syntax" | "package" | "import", ..] => {}
            [kind @ ("service" | "message" | "enum"), name, "{"] if depth == 0 => {
                depth = 1;
                let head = match kind {
                    "service" => ["call", "takes → gives"],
                    "message" => ["field", "type"],
                    _ => ["value", "number"],
                };
                sections.push(Section {
                    title: format!("{kind} {name}"),
                    says,
                    head,
                    rows: Vec::new(),
                });
            }
            [kind @ ("message" | "enum"), name, "{}"] if depth == 0 => sections.push(Section {
                title: format!("{kind} {name}"),
                says,
                head: ["field", "type"],
                rows: Vec::new(),
            }),
            ["oneof", name, "{"] if depth == 1 => {
                choice = Some(name.to_owned());
                depth = 2;
            }
            ["}"] if depth > 0 => {
                depth -= 1;
                choice = None;
            }
            _ if depth > 0 => {
                let section = sections.last_mut().ok_or_else(|| at("nothing is open"))?;
                let mut row = row(&words).ok_or_else(|| at("not understood"))?;
                row.says = match &choice {
                    Some(choice) if says.is_empty() => format!("One of `{choice}`."),
                    Some(choice) => format!("One of `{choice}`. {says}"),
                    None => says,
                };
                section.rows.push(row);
            }
            _ => return Err(at("not understood")),
        }
    }
    Ok(page(&preamble, &sections))
}

fn row(words: &[&str]) -> Option<Row> {
    let (name, kind) = match *words {
        ["rpc", name, ref types @ ..] => {
            let types = types.join(" ");
            let (takes, gives) = types.trim_end_matches(';').trim().split_once(" returns ")?;
            (name, format!("{takes} → {gives}"))
        }
        // An enum's.
        [name, "=", number] => (name, number.trim_end_matches(';').to_owned()),
        [ref kind @ .., name, "=", _number] if !kind.is_empty() => (name, kind.join(" ")),
        _ => return None,
    };
    Some(Row {
        name: name.to_owned(),
        kind: kind.trim_end_matches(';').replace('|', "\\|"),
        says: String::new(),
    })
}

fn paragraph(lines: &[&str], between: &str) -> String {
    lines.join(between).trim().to_owned()
}

fn page(preamble: &str, sections: &[Section]) -> String {
    let mut page = format!(
        "# The API\n\n<!-- Made of {PROTO} by `cargo xtask reference --write`. -->\n\n{}\n",
        preamble.replace("  * ", "* ").replace("    ", "  ")
    );
    for section in sections {
        // Writing to a string can't fail.
        let _ = write!(page, "\n## {}\n", section.title);
        if !section.says.is_empty() {
            let _ = write!(page, "\n{}\n", section.says);
        }
        if section.rows.is_empty() {
            continue;
        }
        let [first, second] = section.head;
        let _ = write!(page, "\n| {first} | {second} | |\n| --- | --- | --- |\n");
        for row in &section.rows {
            let says = row.says.replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | `{}` | {says} |", row.name, row.kind);
        }
    }
    page
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(run(&root, false), Ok(Vec::new()));
    }

    #[test]
    fn all_kinds_of_lines_are_understood() {
        let page = render(
            "// Rules:\n//   * one\nsyntax = \"proto3\";\npackage a;\n\n// Serves.\nservice S {\n  // Runs.\n  rpc Run(A) returns (stream B);\n}\n\n\
             message A {\n  // Its name.\n  // Not empty.\n  optional string id = 1;\n  oneof to {\n    // A pipe | a file.\n    B b = 2;\n  }\n  map<string, string> m = 3;\n}\nmessage B {}\n\
             enum E {\n  E_UNSPECIFIED = 0;\n}\n",
        )
        .expect("understood");
        for line in [
            "* one",
            "## service S",
            "Serves.",
            "| `Run` | `A → stream B` | Runs. |",
            "| `id` | `optional string` | Its name. Not empty. |",
            "| `b` | `B` | One of `to`. A pipe \\| a file. |",
            "| `m` | `map<string, string>` |  |",
            "## message B",
            "| `E_UNSPECIFIED` | `0` |  |",
        ] {
            assert!(
                page.lines().any(|l| l.trim() == line.trim()),
                "{line} is not in\n{page}"
            );
        }
        assert!(render("message A {\n  what is this\n}\n").is_err());
    }
}
