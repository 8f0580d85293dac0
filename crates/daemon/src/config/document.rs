//! A TOML document against the table of keys: every value is checked before anything is taken over, and every complaint
//! names its line, its key and what may stand there.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{KEYS, Key, Kind, RUNTIME_KEYS};

/// A value that fits its key's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    Texts(Vec<String>),
}

/// All values by dotted path, defaults filled in; runtimes only as far as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub values: BTreeMap<String, Value>,
    pub runtimes: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Document {
    /// `origin` is the file's name, for messages.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text)
            .map_err(|e| {
                let line = e.span().map_or(0, |span| line_of(text, span.start));
                ConfigError::Syntax {
                    origin: origin.into(),
                    line,
                    message: e.message().into(),
                }
            })?
            .into_inner();
        let mut reader = Reader {
            text,
            origin,
            problems: Vec::new(),
        };
        let mut document = Self::defaults();
        for (name, value) in &table {
            let at = name.span().start;
            match name.get_ref().as_ref() {
                "runtimes" => reader.runtimes(value.get_ref(), at, &mut document.runtimes),
                section if KEYS.iter().any(|k| k.section == section) => {
                    let keys: Vec<&Key> = KEYS.iter().filter(|k| k.section == section).collect();
                    let read = reader.section(section, &keys, value.get_ref(), at);
                    document
                        .values
                        .extend(read.into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
                }
                other => reader.unknown(at, "", other),
            }
        }
        if reader.problems.is_empty() {
            Ok(document)
        } else {
            Err(ConfigError::Invalid {
                problems: reader.problems.join("\n"),
            })
        }
    }

    pub fn defaults() -> Self {
        let values = KEYS
            .iter()
            .map(|k| (format!("{}.{}", k.section, k.name), default_of(k)))
            .collect();
        Document {
            values,
            runtimes: BTreeMap::new(),
        }
    }
}

/// A default is written as TOML in the table; a test holds each to its kind.
fn default_of(key: &Key) -> Value {
    let literal = key.default;
    match key.kind {
        Kind::Flag => Value::Flag(literal == "true"),
        Kind::Number { .. } => Value::Number(literal.parse().unwrap_or_default()),
        Kind::Texts => Value::Texts(Vec::new()),
        Kind::Text | Kind::Path | Kind::Choice(_) => Value::Text(literal.trim_matches('"').to_owned()),
    }
}

struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn complain(&mut self, at: usize, message: String) {
        self.problems
            .push(format!("{}:{}: {message}", self.origin, line_of(self.text, at)));
    }

    fn section(&mut self, path: &str, keys: &[&Key], value: &DeValue<'_>, at: usize) -> BTreeMap<String, Value> {
        let mut read = BTreeMap::new();
        let Some(table) = value.as_table() else {
            self.complain(
                at,
                format!("{path}: must be a section, [{path}], not {}", describe(value)),
            );
            return read;
        };
        for (name, value) in table {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            let Some(key) = keys.iter().find(|k| k.name == name) else {
                self.unknown(at, path, name);
                continue;
            };
            match check(key.kind, value.get_ref()) {
                Some(value) => drop(read.insert(name.to_owned(), value)),
                None => self.complain(
                    at,
                    format!(
                        "{path}.{name}: must be {}, not {}",
                        key.kind.allowed(),
                        describe(value.get_ref())
                    ),
                ),
            }
        }
        read
    }

    fn runtimes(&mut self, value: &DeValue<'_>, at: usize, into: &mut BTreeMap<String, BTreeMap<String, Value>>) {
        let Some(table) = value.as_table() else {
            return self.complain(
                at,
                format!("runtimes: must be sections, [runtimes.NAME], not {}", describe(value)),
            );
        };
        let keys: Vec<&Key> = RUNTIME_KEYS.iter().collect();
        for (name, value) in table {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if name.is_empty() || name.len() > 76 || !fits {
                self.complain(
                    at,
                    format!("runtimes.{name:?}: a runtime's name is 1 to 76 letters, digits, '.', '_' or '-'"),
                );
                continue;
            }
            let path = format!("runtimes.{name}");
            let read = self.section(&path, &keys, value.get_ref(), at);
            match read.get("path") {
                Some(Value::Text(text)) if !text.is_empty() => drop(into.insert(name.to_owned(), read)),
                _ => self.complain(at, format!("{path}.path: must be given, an absolute path")),
            }
        }
    }

    fn unknown(&mut self, at: usize, section: &str, name: &str) {
        let written = if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        };
        let mut known: Vec<String> = KEYS.iter().map(|k| format!("{}.{}", k.section, k.name)).collect();
        if let Some(runtime) = section.strip_prefix("runtimes.") {
            known.extend(RUNTIME_KEYS.iter().map(|k| format!("runtimes.{runtime}.{}", k.name)));
        }
        if section.is_empty() {
            // A section's own name misspelt, or a key written above its section.
            known.extend(KEYS.iter().map(|k| k.section.to_owned()));
            known.push("runtimes".into());
        }
        let nearest = nearest(&written, &known);
        self.complain(
            at,
            format!("{written}: unknown key; the nearest known one is {nearest}"),
        );
    }
}

/// The candidate with the fewest edits; a candidate whose last part is exactly what was written wins (a key in the wrong section).
fn nearest<'a>(written: &str, known: &'a [String]) -> &'a str {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .iter()
        .min_by_key(|k| {
            if last(k) == last(written) {
                0
            } else {
                1 + strsim::damerau_levenshtein(written, k)
            }
        })
        .map_or("", String::as_str)
}

fn check(kind: Kind, value: &DeValue<'_>) -> Option<Value> {
    match kind {
        Kind::Text => value.as_str().map(|s| Value::Text(s.to_owned())),
        Kind::Path => value
            .as_str()
            .filter(|s| s.is_empty() || (s.starts_with('/') && !s.contains('\0')))
            .map(|s| Value::Text(s.to_owned())),
        Kind::Choice(words) => value
            .as_str()
            .filter(|s| words.contains(s))
            .map(|s| Value::Text(s.to_owned())),
        Kind::Flag => value.as_bool().map(Value::Flag),
        Kind::Number { min, max } => {
            let integer = value.as_integer()?;
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            (min..=max).contains(&number).then_some(Value::Number(number))
        }
        Kind::Texts => {
            let items = value.as_array()?.iter();
            let texts = items
                .map(|v| v.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()?;
            Some(Value::Texts(texts))
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(40).collect();
            format!("the string {short:?}")
        }
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a section".into(),
    }
}

/// The line of a key, if it is written; `path` may name a runtime with dots in its name.
pub fn line_of_key(text: &str, path: &[&str]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?.into_inner();
    let mut table = &document;
    let mut at = None;
    for part in path {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref().as_ref() == *part)?;
        at = Some(name.span().start);
        // Of the last part it is not asked for.
        if let Some(inner) = value.get_ref().as_table() {
            table = inner;
        }
    }
    at.map(|at| line_of(text, at))
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod test {
    use super::*;

    fn complaint(text: &str) -> String {
        Document::parse(text, "t.toml")
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn defaults_fit_their_kinds() {
        for key in KEYS.iter().chain(RUNTIME_KEYS) {
            let text = format!("x = {}", key.default);
            let table = DeTable::parse(&text).expect("a default is TOML").into_inner();
            let (_, value) = table.iter().next().expect("one value");
            let read = check(key.kind, value.get_ref());
            assert_eq!(read, Some(default_of(key)), "{}.{}", key.section, key.name);
        }
    }

    #[test]
    fn the_default_file_is_the_default() {
        let text = crate::config::keys::default_file();
        assert_eq!(Document::parse(&text, "default").expect("valid"), Document::defaults());
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        assert_eq!(
            complaint("[start]\nconcurency = 5\n"),
            "t.toml:2: start.concurency: unknown key; the nearest known one is start.concurrency"
        );
        assert!(complaint("[deamon]\n").ends_with("deamon: unknown key; the nearest known one is daemon"));
        assert!(complaint("concurrency = 3\n").ends_with("the nearest known one is start.concurrency"));
        assert!(complaint("[runtimes.x]\npath='/x'\nagrs=[]").ends_with("the nearest known one is runtimes.x.args"));
    }

    #[test]
    fn wrong_types_and_ranges_name_the_key() {
        let text = complaint("[start]\nconcurrency = \"ten\"\n");
        assert_eq!(
            text,
            "t.toml:2: start.concurrency: must be a whole number from 1 to 10000, not the string \"ten\""
        );
        assert!(complaint("[start]\nconcurrency = -1").contains("start.concurrency"));
        assert!(complaint("[start]\nconcurrency = 1.5").contains("not the number 1.5"));
        assert!(complaint("start = 4").contains("must be a section"));
        assert!(complaint("[log]\nformat = \"xml\"").contains("one of \"cri\", \"json\", \"plain\""));
        assert!(complaint("[runtimes.x]\nargs=[]").contains("runtimes.x.path: must be given"));
        assert!(complaint("[daemon]\nstate = \"run\"").contains("an absolute path"));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = complaint("[start]\nconcurency = 5\nqueue_limit = true\n");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn syntax_errors_have_a_line() {
        assert!(complaint("[start]\nconcurrency = \n").starts_with("t.toml:2:"));
    }

    proptest::proptest! {
        /// Whatever a file holds: values or complaints, each with a line, and never a panic.
        #[test]
        fn no_text_panics(text in ".*", section in "[a-z_]{1,8}", key in "[a-z_.]{1,12}", value in "[0-9a-z\"'\\[\\]{}=., -]{0,12}") {
            let _ = Document::parse(&text, "t");
            if let Err(error) = Document::parse(&format!("[{section}]\n{key} = {value}\n"), "t") {
                proptest::prop_assert!(error.to_string().lines().all(|line| line.starts_with("t:")), "{error}");
            }
        }
    }
}
