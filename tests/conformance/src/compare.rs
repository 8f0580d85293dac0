//! Two runtimes' facts about one case, held against each other and against the table of differences.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::facts::Facts;

const TABLE: &str = include_str!("../data/differences.json");

/// A difference that the suite lets pass. `*` in the patterns stands for any text.
#[derive(Clone, Debug)]
pub struct Known {
    pub cases: Vec<String>,
    pub facts: Vec<String>,
    pub runc: String,
    pub berth: String,
    pub crun: String,
    /// What counts for nothing wherever it stands in a value: then the rest must be the same.
    pub aside: Option<String>,
    pub why: String,
    /// Of this runtime's, and to be mended.
    pub defect: bool,
}

/// The table.
///
/// # Panics
/// If it is not JSON of that form: a fault of this crate.
pub fn known() -> Vec<Known> {
    let all: Vec<Value> = serde_json::from_str(TABLE).expect("differences.json");
    let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
    let list = |value: &Value| match value {
        Value::Array(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    };
    all.iter()
        .map(|entry| Known {
            cases: list(&entry["cases"]),
            facts: list(&entry["facts"]),
            runc: text(&entry["runc"]),
            berth: text(&entry["berth-oci"]),
            crun: text(&entry["crun"]),
            aside: entry["aside"].as_str().map(str::to_owned),
            why: text(&entry["why"]),
            defect: entry["defect"] == true,
        })
        .collect()
}

/// One fact that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub case: String,
    pub fact: String,
    pub runc: String,
    pub berth: String,
}

pub const NOTHING: &str = "nothing";

/// What differs. Where one did not run there is one difference, and not one for every fact that is missing.
pub fn differences(case: &str, runc: &Facts, berth: &Facts) -> Vec<Difference> {
    let value = |facts: &Facts, name: &str| facts.0.get(name).cloned().unwrap_or_else(|| NOTHING.to_owned());
    let one = |fact: &str| Difference {
        case: case.to_owned(),
        fact: fact.to_owned(),
        runc: value(runc, fact),
        berth: value(berth, fact),
    };
    for ran in ["ran", "exec ran"] {
        if runc.has(ran) != berth.has(ran) {
            let told = |facts: &Facts| match facts.has(ran) {
                true => format!("refused: {}", value(facts, "said")),
                false => "ran".to_owned(),
            };
            return vec![Difference {
                runc: told(runc),
                berth: told(berth),
                ..one(ran)
            }];
        }
    }
    let names: BTreeSet<&String> = runc.0.keys().chain(berth.0.keys()).collect();
    let compared = names.into_iter().filter(|name| *name != "said");
    compared
        .map(|name| one(name))
        .filter(|found| found.runc != found.berth)
        .collect()
}

impl Known {
    /// A combination has the names of its parts, ` + ` between them.
    pub fn covers(&self, found: &Difference) -> bool {
        let case = found
            .case
            .split(" + ")
            .any(|part| self.cases.iter().any(|pattern| fits(pattern, part)));
        if !case || !self.facts.iter().any(|pattern| fits(pattern, &found.fact)) {
            return false;
        }
        match &self.aside {
            Some(aside) => found.runc.replace(aside, "") == found.berth.replace(aside, ""),
            None => fits(&self.runc, &found.runc) && fits(&self.berth, &found.berth),
        }
    }
}

/// Whether `text` is `pattern`, `*` standing for anything.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    loop {
        match rest.split_once('*') {
            None => return text.ends_with(rest),
            Some((middle, after)) => match text.find(middle) {
                None => return false,
                Some(at) => (text, rest) = (&text[at + middle.len()..], after),
            },
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in [("a*c", "abc"), ("*", ""), ("a*b*c", "a1b2c"), ("x", "x"), ("*z", "zz")] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abd"), ("x", "xx"), ("a*b*c", "acb"), ("ab*b", "ab")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_one_refuses_is_one_difference() {
        let (mut ran, mut refused) = (Facts::default(), Facts::default());
        ran.put("exit", "0");
        refused.put("ran", "no");
        refused.put("said", "why");
        let found = differences("c", &ran, &refused);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].runc.as_str(), found[0].berth.as_str()),
            ("ran", "refused: why")
        );
        assert!(differences("c", &ran, &ran).is_empty());
    }

    #[test]
    fn the_table_says_why() {
        for known in known() {
            assert!(known.why.len() > 10, "{known:?}");
        }
    }
}
