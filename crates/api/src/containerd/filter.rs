//! containerd's filters: a list of which one must fit (or), each a list of selectors that must all fit (and).
//!
//! ```text
//! filter   = selector {"," selector}
//! selector = path [("==" | "!=" | "~=") value]        no operator: the field is there
//! path     = field {"." field}      field = [A-Za-z0-9_]+ or quoted      value = quoted or all up to the next comma or space
//! ```
//!
//! After `~=` a value may also stand between slashes or bars. A regular expression that is none, or one too costly, fits nothing;
//! it is not an error of the syntax. Matching takes time linear in the text, whatever the expression; what compiled expressions and
//! their caches may hold is bounded for a request, and so is their number, for compiling one takes milliseconds.

use regex::{Regex, RegexBuilder};

/// Bytes of one filter; more is refused.
const MAX_TEXT: usize = 64 << 10;
/// Bytes of all filters of one request.
const MAX_TOTAL: usize = 1 << 20;
/// Filters of one request.
const MAX_FILTERS: usize = 1024;
/// Memory of one compiled expression.
const MAX_REGEX: usize = 1 << 20;
/// Memory of what matching with it keeps.
const MAX_CACHE: usize = 256 << 10;
/// Regular expressions of one request.
const MAX_REGEXES: usize = 32;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("filter {filter:?}, at byte {at}: {problem}")]
pub struct FilterError {
    filter: String,
    at: usize,
    problem: &'static str,
}

/// What a request wants to see. Without filters, or with an empty one, everything.
#[derive(Debug, Default)]
pub struct Filter {
    any: Vec<Vec<Selector>>,
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    /// `None` = an expression that can't be used.
    Matches(Option<Regex>),
}

impl Filter {
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Filter, FilterError> {
        if filters.len() > MAX_FILTERS {
            return Err(FilterError {
                filter: String::new(),
                at: 0,
                problem: "more than 1024 filters",
            });
        }
        let (mut any, mut regexes, mut total) = (Vec::with_capacity(filters.len()), 0, 0);
        for filter in filters {
            let text = filter.as_ref();
            let parser = Parser { text, at: 0, regexes };
            total += text.len();
            let parsed = if total > MAX_TOTAL {
                Err((0, "the filters are longer than 1048576 bytes together"))
            } else {
                parser.filter()
            };
            let (all, so_far) = parsed.map_err(|(at, problem)| FilterError {
                filter: text.chars().take(80).collect(),
                at,
                problem,
            })?;
            regexes = so_far;
            any.push(all);
        }
        Ok(Filter { any })
    }

    /// `field` tells the value of a path; `None` = there is no such field.
    pub fn matches<'a>(&self, field: impl Fn(&[String]) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        let fits = |selector: &Selector| {
            let value = field(&selector.path);
            match &selector.test {
                Test::Present => value.is_some(),
                Test::Equal(wanted) => value.is_some_and(|value| value == *wanted),
                Test::NotEqual(wanted) => value.is_none_or(|value| value != *wanted),
                Test::Matches(regex) => regex
                    .as_ref()
                    .is_some_and(|regex| regex.is_match(&value.unwrap_or_default())),
            }
        };
        self.any.is_empty() || self.any.iter().any(|all| all.iter().all(fits))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Of the request so far.
    regexes: usize,
}

type Problem = (usize, &'static str);

impl Parser<'_> {
    /// The selectors, and how many expressions the request has with them.
    fn filter(mut self) -> Result<(Vec<Selector>, usize), Problem> {
        if self.text.len() > MAX_TEXT {
            return Err((0, "longer than 65536 bytes"));
        }
        let mut all = Vec::new();
        self.skip_space();
        while self.peek().is_some() {
            all.push(self.selector()?);
            self.skip_space();
            match self.peek() {
                None => break,
                Some(',') => self.at += 1,
                Some(_) => return Err((self.at, "a comma expected")),
            }
            self.skip_space();
            if self.peek().is_none() {
                return Err((self.at, "a selector expected after the comma"));
            }
        }
        Ok((all, self.regexes))
    }

    fn selector(&mut self) -> Result<Selector, Problem> {
        let mut path = vec![self.field()?];
        loop {
            self.skip_space();
            if self.peek() != Some('.') {
                break;
            }
            self.at += 1;
            self.skip_space();
            path.push(self.field()?);
        }
        let test = match self.text.get(self.at..self.at + 2) {
            Some("==") => Test::Equal(self.value(false)?),
            Some("!=") => Test::NotEqual(self.value(false)?),
            Some("~=") => {
                let begin = self.at;
                let text = self.value(true)?;
                self.regexes += 1;
                if self.regexes > MAX_REGEXES {
                    return Err((begin, "more than 32 regular expressions in one request"));
                }
                let mut builder = RegexBuilder::new(&text);
                Test::Matches(builder.size_limit(MAX_REGEX).dfa_size_limit(MAX_CACHE).build().ok())
            }
            _ if matches!(self.peek(), None | Some(',')) => Test::Present,
            _ => return Err((self.at, "an operator expected: ==, != or ~=")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, Problem> {
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let field = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if field.is_empty() {
            return Err((self.at, "a field expected"));
        }
        Ok(field)
    }

    fn value(&mut self, is_regex: bool) -> Result<String, Problem> {
        self.at += 2;
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(c @ ('/' | '|')) if is_regex => self.quoted(c),
            Some('/' | '|') => Err((
                self.at,
                "only an expression may stand between slashes or bars; quote the value",
            )),
            _ => {
                let value = self.take_while(|c| c != ',' && !c.is_whitespace() && !c.is_control());
                if value.is_empty() {
                    return Err((self.at, "a value expected"));
                }
                Ok(value)
            }
        }
    }

    /// With Go's escapes between double quotes; between others only the quote itself is escaped.
    fn quoted(&mut self, quote: char) -> Result<String, Problem> {
        let begin = self.at;
        let mut chars = self.text[begin + 1..].char_indices();
        let mut value = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at = begin + 1 + at + c.len_utf8();
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, next)) if next == quote => value.push(next),
                    Some((at, next)) if quote == '"' => {
                        let mut number = |digits: usize, first: Option<char>| {
                            let text: String = first
                                .into_iter()
                                .chain(chars.by_ref().map(|(_, c)| c))
                                .take(digits)
                                .collect();
                            let radix = if first.is_some() { 8 } else { 16 };
                            let code = u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == digits);
                            code.and_then(char::from_u32)
                        };
                        let c = match next {
                            'a' => Some('\x07'),
                            'b' => Some('\x08'),
                            'f' => Some('\x0c'),
                            'n' => Some('\n'),
                            'r' => Some('\r'),
                            't' => Some('\t'),
                            'v' => Some('\x0b'),
                            '\\' => Some('\\'),
                            'x' => number(2, None),
                            'u' => number(4, None),
                            'U' => number(8, None),
                            '0'..='7' => number(3, Some(next)),
                            _ => None,
                        };
                        value.push(c.ok_or((begin + 1 + at, "an unknown escape"))?);
                    }
                    Some((_, next)) => value.extend(['\\', next]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err((begin, "a quote that does not end"))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }
}

#[cfg(test)]
mod test {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn matches(filters: &[&str]) -> bool {
        Filter::parse(filters).expect("valid").matches(|path| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            Some(Cow::Borrowed(match path.as_slice() {
                ["namespace"] => "moby",
                ["topic"] => "/tasks/exit",
                ["labels", "a", "b"] | ["labels", "a.b"] => "v,w",
                _ => return None,
            }))
        })
    }

    #[test]
    fn what_clients_send() {
        for fits in [
            &[][..],
            &[""],
            &["namespace==moby,topic~=|^/tasks/|"],
            &["namespace==x", "namespace==moby"],
            &["topic==\"/tasks/exit\""],
            &["topic~=/tasks\\/(exit|oom)/"],
            &["topic~=\"^/tasks\""],
            &["namespace==moby , topic"],
            &["labels.a.b == \"v,w\""],
            &["labels.\"a.b\"==\"v\\x2cw\""],
            &["missing!=x"],
            &["missing~=^$"],
        ] {
            assert!(matches(fits), "{fits:?}");
        }
        for other in [
            "namespace==x",
            "namespace==moby,topic~=|^/images/|",
            "missing",
            "missing==",
            "topic~=\"[\"",
            "topic~=/(a{1000}){1000}/",
        ] {
            assert!(
                Filter::parse(&[other]).is_err() || !matches(&[other]),
                "{other} fits nothing"
            );
        }
    }

    #[test]
    fn errors_of_the_syntax() {
        for wrong in [
            "topic==/tasks/exit",
            "topic=x",
            "=x",
            "a==b,",
            "a==\"x",
            "a b",
            "a==\"\\q\"",
            "a.",
            ",",
        ] {
            assert!(Filter::parse(&[wrong]).is_err(), "{wrong}");
        }
        assert!(Filter::parse(&["x".repeat(MAX_TEXT + 1)]).is_err());
    }

    #[test]
    fn a_request_is_bounded() {
        assert!(Filter::parse(&vec!["id==a"; MAX_FILTERS]).is_ok());
        assert!(Filter::parse(&vec!["id==a"; MAX_FILTERS + 1]).is_err());
        assert!(Filter::parse(&vec!["id~=a"; MAX_REGEXES]).is_ok());
        assert!(Filter::parse(&vec!["id~=a"; MAX_REGEXES + 1]).is_err());
        assert!(Filter::parse(&["id~=a,".repeat(MAX_REGEXES) + "id~=a"]).is_err());
        let long = format!("id=={}", "a".repeat(MAX_TEXT - 4));
        assert!(Filter::parse(&[&long; MAX_TOTAL / MAX_TEXT]).is_ok());
        assert!(Filter::parse(&[&long; MAX_TOTAL / MAX_TEXT + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", structured in "[a-z.\"\\\\,=!~/| ]{0,24}") {
            let _ = Filter::parse(&[text, structured]);
        }
    }
}
