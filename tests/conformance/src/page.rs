//! `docs/conformance.md`: what people wrote, and between two marks what the table of differences says.

use std::fmt::Write;

use crate::compare::{Known, known};
use crate::{case, schema};

const BEGIN: &str =
    "<!-- from tests/conformance/data/differences.json: BERTH_WRITE_PAGE=1 ./dev test -- page_is_the_table -->\n";
const END: &str = "<!-- until here -->";

/// The page with its generated part made new; `None` without the marks.
pub fn renew(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", tables()))
}

fn tables() -> String {
    let (defects, stays): (Vec<Known>, Vec<Known>) = known().into_iter().partition(|known| known.defect);
    let mut text = format!(
        "\n{} configs; {} properties of the schema, of which {} have none:\n",
        case::all().len(),
        schema::properties().len(),
        schema::WITHOUT.len()
    );
    for (property, why) in schema::WITHOUT {
        let _ = write!(text, "`{property}` ({why}) ");
    }
    text = text.trim_end().to_owned();
    text.push_str(".\n\n### Differences that stay\n\n");
    rows(&mut text, &stays);
    text.push_str("\n### Differences that are defects, not yet mended\n\n");
    if defects.is_empty() {
        text.push_str("None.\n");
    } else {
        rows(&mut text, &defects);
    }
    text.push('\n');
    text
}

fn rows(text: &mut String, all: &[Known]) {
    text.push_str("| config | what | runc | berth-oci | crun | why |\n| --- | --- | --- | --- | --- | --- |\n");
    for known in all {
        let cell = |text: &str| match text {
            "*" => "any".to_owned(),
            text => format!("`{}`", text.replace('|', "\\|")),
        };
        let list = |all: &[String]| all.iter().map(|one| cell(one)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            list(&known.cases),
            list(&known.facts),
            cell(&known.runc),
            cell(&known.berth),
            known.crun,
            known.why
        );
    }
}
