//! A bundle as a caller hands it over: is it one, and is its config.json something that a runtime can work with?
//!
//! Runtimes answer a bad bundle in words of their own, or not at all (a FIFO as config.json hangs them). So the common
//! mistakes are found here, with the field's name. What is right for this check may still be refused by the runtime.

mod outline;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::Error;

/// A config.json that is longer is refused before it is parsed.
pub const CONFIG_LIMIT: u64 = 16 << 20;

/// A bundle whose config.json was read and checked.
#[derive(Debug)]
pub struct Bundle {
    text: Vec<u8>,
    process: Vec<u8>,
}

impl Bundle {
    /// Reads and checks the bundle at `path`. `terminal` is what the caller's stdio is: it must be what `process.terminal` says.
    pub fn load(path: &Path, terminal: bool) -> Result<Bundle, Error> {
        let bad = |problem: String| Error::Bundle {
            path: path.to_owned(),
            problem,
        };
        if !path.is_absolute() {
            return Err(bad("the path is not absolute".into()));
        }
        let meta = path.metadata().map_err(|error| bad(unreachable(&error)))?;
        if !meta.is_dir() {
            return Err(bad("not a folder".into()));
        }
        let text = berth_sys::file::read(&path.join("config.json"), CONFIG_LIMIT).map_err(|error| {
            bad(match error.kind() {
                io::ErrorKind::NotFound => "there is no config.json in it".into(),
                io::ErrorKind::InvalidData => format!("config.json: {error}"),
                _ => format!("config.json can't be read: {error}"),
            })
        })?;
        let (root, process) = match outline::of(&text, terminal) {
            Some(found) => found,
            None => checked(&text, terminal).map_err(|problem| bad(format!("config.json: {problem}")))?,
        };
        // As this mount namespace sees it.
        let rootfs = path.join(root);
        match rootfs.metadata() {
            Ok(meta) if meta.is_dir() => Ok(Bundle { text, process }),
            Ok(_) => Err(bad(format!("root.path: {} is not a folder", rootfs.display()))),
            Err(error) => Err(bad(format!("root.path: {}: {error}", rootfs.display()))),
        }
    }

    /// config.json.
    pub fn into_config(self) -> Vec<u8> {
        self.text
    }

    /// The init's process object: what `exec_process` starts from, also when the bundle is gone.
    pub fn process(&self) -> &[u8] {
        &self.process
    }
}

/// root.path and the process of a config.json, after all checks.
fn checked(text: &[u8], terminal: bool) -> Result<(PathBuf, Vec<u8>), String> {
    let config: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    check(&config, terminal)?;
    let root = config["root"]["path"].as_str().unwrap_or("rootfs");
    Ok((root.into(), config["process"].to_string().into_bytes()))
}

fn unreachable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".into(),
        io::ErrorKind::NotADirectory => "a part of the path is not a folder".into(),
        // ELOOP; its ErrorKind is not stable.
        _ if error.raw_os_error() == Some(40) => "symbolic links go in a circle".into(),
        _ => format!("can't be reached: {error}"),
    }
}

/// The kinds of JSON values, for `FIELDS`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    Number,
    Object,
    Texts,
    Objects,
    TextMap,
}

/// Fields that callers get wrong, their kinds, and whether a container can do without. Unknown fields are the runtime's matter.
const FIELDS: &[(&str, Kind, bool)] = &[
    ("ociVersion", Kind::Text, true),
    ("process", Kind::Object, true),
    ("process.terminal", Kind::Flag, false),
    ("process.args", Kind::Texts, true),
    ("process.env", Kind::Texts, false),
    ("process.cwd", Kind::Text, true),
    ("process.user", Kind::Object, false),
    ("process.user.uid", Kind::Number, false),
    ("process.user.gid", Kind::Number, false),
    ("process.capabilities", Kind::Object, false),
    ("process.rlimits", Kind::Objects, false),
    ("process.noNewPrivileges", Kind::Flag, false),
    ("root", Kind::Object, true),
    ("root.path", Kind::Text, true),
    ("root.readonly", Kind::Flag, false),
    ("hostname", Kind::Text, false),
    ("mounts", Kind::Objects, false),
    ("hooks", Kind::Object, false),
    ("annotations", Kind::TextMap, false),
    ("linux", Kind::Object, false),
    ("linux.namespaces", Kind::Objects, false),
    ("linux.resources", Kind::Object, false),
    ("linux.cgroupsPath", Kind::Text, false),
    ("linux.seccomp", Kind::Object, false),
];

fn check(config: &Value, terminal: bool) -> Result<(), String> {
    if !config.is_object() {
        return Err(format!("an object expected, not {}", name(config)));
    }
    // The version first: with another one the fields below need not be the same.
    check_version(&config["ociVersion"])?;
    for &(path, kind, needed) in FIELDS {
        let value = path.split('.').fold(config, |at, key| &at[key]);
        match value {
            Value::Null if needed => return Err(format!("{path} is missing")),
            Value::Null => {}
            value if fits(value, kind) => {}
            value => return Err(format!("{path}: {} expected, not {}", expected(kind), name(value))),
        }
    }
    let process = &config["process"];
    if process["args"].as_array().is_none_or(Vec::is_empty) {
        return Err("process.args is empty: there is nothing to run".into());
    }
    if process["cwd"].as_str().is_none_or(|cwd| !cwd.starts_with('/')) {
        return Err("process.cwd is not an absolute path".into());
    }
    match (process["terminal"].as_bool().unwrap_or(false), terminal) {
        (true, false) => Err("process.terminal is true, but the request asks for no terminal".into()),
        (false, true) => Err("process.terminal is false, but the request asks for a terminal".into()),
        _ => Ok(()),
    }
}

/// 1.x of any x: minor versions only add.
fn check_version(version: &Value) -> Result<(), String> {
    let Some(text) = version.as_str() else {
        return Err(match version {
            Value::Null => "ociVersion is missing".into(),
            other => format!("ociVersion: a string expected, not {}", name(other)),
        });
    };
    let shown: String = text.chars().take(40).collect();
    let mut parts = text.split(['.', '-', '+']);
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    match (number(), number(), number()) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        (Some(0), Some(_), Some(_)) => Err(format!("ociVersion {shown:?} is too old; 1.x is supported")),
        (Some(_), Some(_), Some(_)) => Err(format!("ociVersion {shown:?} is of a future release; 1.x is supported")),
        _ => Err(format!("ociVersion {shown:?} is not a version such as \"1.0.2\"")),
    }
}

fn fits(value: &Value, kind: Kind) -> bool {
    let all = |is: fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(is));
    match kind {
        Kind::Text => value.is_string(),
        Kind::Flag => value.is_boolean(),
        Kind::Number => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        Kind::Object => value.is_object(),
        Kind::Texts => all(Value::is_string),
        Kind::Objects => all(Value::is_object),
        Kind::TextMap => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a string",
        Kind::Flag => "true or false",
        Kind::Number => "a number from 0 to 4294967295",
        Kind::Object => "an object",
        Kind::Texts => "a list of strings",
        Kind::Objects => "a list of objects",
        Kind::TextMap => "an object of strings",
    }
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(list) if list.iter().all(Value::is_string) => "a list of strings",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod test {
    use std::os::unix::fs::symlink;

    use berth_core::ErrorCode;
    use serde_json::json;

    use super::*;
    use crate::testing::Folder;

    fn good() -> Value {
        json!({
            "ociVersion": "1.0.2-dev", "root": {"path": "rootfs"},
            "process": {"args": ["sh"], "cwd": "/", "env": ["A=1"], "user": {"uid": 0, "gid": 0}},
        })
    }

    fn told(path: &Path, terminal: bool) -> String {
        let error = Bundle::load(path, terminal).expect_err("a bad bundle");
        assert_eq!(error.code(), ErrorCode::Bundle);
        error.to_string()
    }

    #[test]
    fn every_common_mistake_is_named() {
        let folder = Folder::new();
        let bundle = folder.path().join("b");
        let config = bundle.join("config.json");
        assert!(told(&bundle, false).ends_with("/b: does not exist"));
        assert!(told(Path::new("b"), false).ends_with("the path is not absolute"));
        std::fs::write(&bundle, "").expect("file");
        assert!(told(&bundle, false).ends_with("not a folder"));
        std::fs::remove_file(&bundle).expect("remove");
        symlink(&bundle, &bundle).expect("link");
        assert!(told(&bundle, false).ends_with("symbolic links go in a circle"));
        std::fs::remove_file(&bundle).expect("remove");
        std::fs::create_dir(&bundle).expect("folder");
        assert!(told(&bundle, false).ends_with("there is no config.json in it"));
        std::fs::create_dir(&config).expect("folder");
        assert!(told(&bundle, false).ends_with("not a regular file"));
        std::fs::remove_dir(&config).expect("remove");
        std::fs::File::create(&config)
            .and_then(|file| file.set_len(100 << 20))
            .expect("big");
        assert!(told(&bundle, false).ends_with("config.json: longer than 16777216 bytes"));
        std::fs::write(&config, "{\"a\": nope").expect("file");
        assert!(told(&bundle, false).contains("config.json: expected"));
        std::fs::write(&config, good().to_string()).expect("file");
        assert!(told(&bundle, false).contains("root.path: "));
        std::fs::create_dir(bundle.join("rootfs")).expect("folder");
        Bundle::load(&bundle, false).expect("a good bundle");
        assert!(told(&bundle, true).ends_with("process.terminal is false, but the request asks for a terminal"));
    }

    #[test]
    fn wrong_fields_are_named() {
        let with = |pointer: &str, value: Value| {
            let mut config = good();
            *config.pointer_mut(pointer).expect("there") = value;
            check(&config, false).expect_err("wrong")
        };
        assert_eq!(
            with("/process/args", json!([])),
            "process.args is empty: there is nothing to run"
        );
        assert_eq!(
            with("/process/args", json!("sh")),
            "process.args: a list of strings expected, not a string"
        );
        assert_eq!(
            with("/process/args", json!(["a", 1])),
            "process.args: a list of strings expected, not a list"
        );
        assert_eq!(
            with("/process/user/uid", json!(-1)),
            "process.user.uid: a number from 0 to 4294967295 expected, not a number"
        );
        assert_eq!(with("/process/cwd", json!("x")), "process.cwd is not an absolute path");
        assert_eq!(with("/process", json!(null)), "process is missing");
        assert_eq!(with("/root", json!("rootfs")), "root: an object expected, not a string");
        assert_eq!(
            with("/ociVersion", json!("2.0.0")),
            "ociVersion \"2.0.0\" is of a future release; 1.x is supported"
        );
        assert_eq!(
            with("/ociVersion", json!("0.6.0")),
            "ociVersion \"0.6.0\" is too old; 1.x is supported"
        );
        assert_eq!(
            with("/ociVersion", json!("one")),
            "ociVersion \"one\" is not a version such as \"1.0.2\""
        );
        assert_eq!(
            with("/ociVersion", json!(1)),
            "ociVersion: a string expected, not a number"
        );
        assert_eq!(
            check(&json!([]), false).expect_err("wrong"),
            "an object expected, not a list of strings"
        );
    }
}
