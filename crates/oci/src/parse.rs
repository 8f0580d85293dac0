//! From JSON to the specification's types: as fast as can be where all is well, and with the field's name, its value and what is
//! allowed where it is not.
//!
//! A capability that this version does not know is left out and told, as runc does: an engine may be younger than its runtime.

use oci_spec::runtime::Capability;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::error::OciError;

/// Longer values are cut in an error's text.
const SHOWN: usize = 120;

/// Parses `text`, the content of `path`. `warn` is told what was left out.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], path: &str, warn: &mut dyn FnMut(&str)) -> Result<T, OciError> {
    if let Ok(parsed) = serde_json::from_slice(text) {
        return Ok(parsed);
    }
    let json = |source| OciError::Json {
        path: path.to_owned(),
        source,
    };
    let mut value: Value = serde_json::from_slice(text).map_err(json)?;
    drop_unknown_capabilities(&mut value, warn);
    match serde_path_to_error::deserialize(&value) {
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(told(path, &value, &error)),
    }
}

/// In config.json's process, and where `value` is a process itself.
fn drop_unknown_capabilities(value: &mut Value, warn: &mut dyn FnMut(&str)) {
    for at in ["/process/capabilities", "/capabilities"] {
        let Some(Value::Object(sets)) = value.pointer_mut(at) else {
            continue;
        };
        let mut unknown = Vec::new();
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            names.retain(|name| {
                let known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !known && !unknown.contains(name) {
                    unknown.push(name.clone());
                }
                known
            });
        }
        for name in unknown {
            warn(&format!("ignoring unknown capability {name}"));
        }
    }
}

fn told(path: &str, document: &Value, error: &serde_path_to_error::Error<serde_json::Error>) -> OciError {
    let at = match error.path().to_string().as_str() {
        "." => path.to_owned(),
        field => format!("{path}: {field}"),
    };
    let said = error.inner().to_string();
    if let Some(name) = said.strip_prefix("missing field ") {
        let between = if at == path { ": " } else { "." };
        let field = format!("{at}{between}{}", name.trim_matches('`'));
        return OciError::field(field, "missing", "it is required");
    }
    let found = error.path().iter().try_fold(document, |value, part| match part {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let mut value = found.unwrap_or(document).to_string();
    if let Some((cut, _)) = value.char_indices().nth(SHOWN) {
        value.truncate(cut);
        value.push('…');
    }
    let allowed = said
        .split_once("expected ")
        .map_or(said.as_str(), |(_, allowed)| words(allowed));
    OciError::field(at, value, allowed)
}

/// What serde says, for those who know JSON and not Rust.
fn words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 to 18446744073709551615",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" => "a whole number from -9223372036854775808 to 9223372036854775807",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" => "a path",
        "a map" => "an object",
        object if object.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod test {
    use oci_spec::runtime::Process;

    use super::*;

    fn parsed(text: &str) -> (Result<Process, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let parsed = parse(text.as_bytes(), "process.json", &mut |warning| {
            warnings.push(warning.to_owned())
        });
        (parsed.map_err(|error| error.to_string()), warnings)
    }

    #[test]
    fn a_capability_of_tomorrow_is_left_out() {
        let (process, warnings) = parsed(
            r#"{"user":{},"cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_TOMORROW"],"permitted":["CAP_TOMORROW"]}}"#,
        );
        let sets = process.expect("legal").capabilities().clone().expect("sets");
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
        assert_eq!(warnings, ["ignoring unknown capability \"CAP_TOMORROW\""]);
    }

    #[test]
    fn an_error_names_field_value_and_what_is_allowed() {
        let told = |text: &str| parsed(text).0.expect_err("refused");
        assert_eq!(
            told(r#"{"user":{"uid":-1},"cwd":"/"}"#),
            "process.json: user.uid: -1: a whole number from 0 to 4294967295"
        );
        assert_eq!(
            told(r#"{"user":{},"cwd":"/","env":["A=1",2]}"#),
            "process.json: env[1]: 2: a string"
        );
        assert_eq!(told(r#"{"user":{}}"#), "process.json: cwd: missing: it is required");
        assert_eq!(told(r#"{"user":1,"cwd":"/"}"#), "process.json: user: 1: an object");
        let rlimit = told(r#"{"user":{},"cwd":"/","rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]}"#);
        assert!(
            rlimit.starts_with("process.json: rlimits[0].type: \"RLIMIT_X\": ") && rlimit.contains("RLIMIT_NOFILE"),
            "{rlimit}"
        );
        assert!(told("{").contains("process.json"));
    }
}
