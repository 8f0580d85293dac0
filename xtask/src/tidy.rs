//! House rules that neither rustfmt nor clippy knows, one function a rule.
//!
//! A rule that cannot be checked from the text of one file does not belong here.

use std::path::{Path, PathBuf};

/// Where sources lie, seen from the workspace.
const FOLDERS: &[&str] = &["crates", "tests", "bench", "xtask", "fuzz"];
/// A longer file says in its `//!` why: the words [`LONG`].
const MAX_LINES: usize = 600;
const LONG: &str = "Long because";
/// The one crate with unsafe code.
const UNSAFE_HOME: &str = "crates/sys/";

/// One source file: its path from the workspace and its text.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

pub fn run(root: &Path) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    for path in FOLDERS
        .iter()
        .map(|folder| root.join(folder))
        .filter(|path| path.exists())
        .map(files)
    {
        for path in path? {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            complaints.extend(check(&Source {
                path: &path,
                text: &text,
            }));
        }
    }
    Ok(complaints)
}

fn files(folder: PathBuf) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn check(source: &Source<'_>) -> Vec<String> {
    let rules = [
        opens_with_its_job,
        forbids_unsafe,
        names_its_tests,
        says_why_it_is_long,
        says_why_it_sleeps,
    ];
    rules
        .iter()
        .filter_map(|rule| rule(source))
        .map(|complaint| format!("{}: {complaint}", source.path))
        .collect()
}

fn opens_with_its_job(source: &Source<'_>) -> Option<String> {
    let good = source.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    (!good).then(|| "must open with `//! ` and what the file is for".to_owned())
}

fn forbids_unsafe(source: &Source<'_>) -> Option<String> {
    let is_root = source.path.ends_with("/src/lib.rs")
        || source.path.ends_with("/src/main.rs")
        || source.path.contains("/src/bin/");
    let good = !is_root || source.path.starts_with(UNSAFE_HOME) || source.text.contains("\n#![forbid(unsafe_code)]\n");
    (!good).then(|| format!("a crate root outside {UNSAFE_HOME} says #![forbid(unsafe_code)]"))
}

fn names_its_tests(source: &Source<'_>) -> Option<String> {
    let bad = source
        .text
        .lines()
        .any(|line| line.trim_start().starts_with("mod tests"));
    bad.then(|| "unit tests live in `mod test`".to_owned())
}

fn says_why_it_is_long(source: &Source<'_>) -> Option<String> {
    let lines = source.text.lines().count();
    let head = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains(LONG));
    (lines > MAX_LINES && !head)
        .then(|| format!("has {lines} lines, over {MAX_LINES}: split it, or write `{LONG} …` in its //!"))
}

/// Waiting is for a fact. A sleep outside tests needs a comment on its line or the line above.
fn says_why_it_sleeps(source: &Source<'_>) -> Option<String> {
    let tests = ["/tests/", "/test.rs", "_test.rs", "/fake.rs"];
    if source.path.starts_with("tests/") || tests.iter().any(|part| source.path.contains(part)) {
        return None;
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let unit_tests =
        |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let code = lines.windows(2).position(unit_tests).unwrap_or(lines.len());
    let sleeps = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("sleep(") && !code.contains("fn sleep(")
    };
    let comment = |index: usize| lines[index].contains("//") || (index > 0 && lines[index - 1].contains("//"));
    let line = (0..code).find(|index| sleeps(lines[*index]) && !comment(*index))?;
    Some(format!(
        "line {} sleeps and has no comment that says why no fact can be waited for",
        line + 1
    ))
}

#[cfg(test)]
mod test {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(&Source { path, text }).len()
    }

    #[test]
    fn planted_violations_are_found() {
        let cases = [
            ("crates/core/src/id.rs", "//! Ids.\n", 0),
            ("crates/core/src/id.rs", "use std::fmt;\n", 1),
            ("crates/core/src/lib.rs", "//! Core.\n#![forbid(unsafe_code)]\n", 0),
            ("crates/core/src/lib.rs", "//! Core.\n", 1),
            ("crates/sys/src/lib.rs", "//! Sys.\n", 0),
            ("crates/core/src/id.rs", "//! Ids.\n#[cfg(test)]\nmod tests {}\n", 1),
            ("crates/core/src/id.rs", "//! Ids.\n\nsleep(1);\n", 1),
            (
                "crates/core/src/id.rs",
                "//! Ids.\n\n// The peer has no event for this.\nsleep(1);\n",
                0,
            ),
            (
                "crates/core/src/id.rs",
                "//! Ids.\n#[cfg(test)]\nmod test {\nsleep(1);\n}\n",
                0,
            ),
            (
                "tests/e2e/src/lib.rs",
                "//! Tests.\n#![forbid(unsafe_code)]\nsleep(1);\n",
                0,
            ),
        ];
        for (path, text, expected) in cases {
            assert_eq!(complaints(path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn a_long_file_says_why() {
        let body = "\n".repeat(MAX_LINES);
        assert_eq!(complaints("crates/core/src/id.rs", &format!("//! Ids.\n{body}")), 1);
        assert_eq!(
            complaints(
                "crates/core/src/id.rs",
                &format!("//! Ids.\n//! {LONG} it is one table.\n{body}")
            ),
            0
        );
    }
}
