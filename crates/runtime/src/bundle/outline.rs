//! The check of a config.json in one pass and without a tree of it, for every start: it says yes or nothing. Whatever it does not say
//! yes to, for whatever reason, the thorough check looks at, which knows words for what is wrong.
//!
//! Invariant: it is never content with what [`super::check`] refuses.

#![expect(dead_code, reason = "many fields are there for their types alone")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

type Raw<'t> = Option<&'t RawValue>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config<'t> {
    #[serde(borrow)]
    oci_version: Cow<'t, str>,
    #[serde(borrow)]
    process: &'t RawValue,
    #[serde(borrow)]
    root: &'t RawValue,
    hostname: Option<String>,
    #[serde(borrow)]
    mounts: Option<Vec<&'t RawValue>>,
    #[serde(borrow)]
    hooks: Raw<'t>,
    #[serde(borrow)]
    annotations: Raw<'t>,
    #[serde(borrow)]
    linux: Raw<'t>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process<'t> {
    terminal: Option<bool>,
    #[serde(borrow)]
    args: Vec<Cow<'t, str>>,
    #[serde(borrow)]
    env: Option<Vec<Cow<'t, str>>>,
    #[serde(borrow)]
    cwd: Cow<'t, str>,
    #[serde(borrow)]
    user: Raw<'t>,
    #[serde(borrow)]
    capabilities: Raw<'t>,
    #[serde(borrow)]
    rlimits: Option<Vec<&'t RawValue>>,
    no_new_privileges: Option<bool>,
}

#[derive(Deserialize)]
struct User {
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Deserialize)]
struct Root<'t> {
    #[serde(borrow)]
    path: Cow<'t, str>,
    readonly: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'t> {
    #[serde(borrow)]
    namespaces: Option<Vec<&'t RawValue>>,
    #[serde(borrow)]
    resources: Raw<'t>,
    cgroups_path: Option<String>,
    #[serde(borrow)]
    seccomp: Raw<'t>,
}

/// An object, and no list, which serde takes for one as well.
fn object<'t, T: Deserialize<'t>>(text: &'t str) -> Option<T> {
    text.trim_start()
        .starts_with('{')
        .then(|| serde_json::from_str(text).ok())?
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

fn are_objects(list: &Option<Vec<&RawValue>>) -> bool {
    list.iter().flatten().all(|one| is_object(one))
}

/// root.path and the process, if all is well.
pub(super) fn of(text: &[u8], terminal: bool) -> Option<(PathBuf, Vec<u8>)> {
    let config: Config<'_> = object(std::str::from_utf8(text).ok()?)?;
    super::check_version(&config.oci_version.as_ref().into()).ok()?;
    let process: Process<'_> = object(config.process.get())?;
    let User { .. } = process
        .user
        .map_or(Some(User { uid: None, gid: None }), |user| object(user.get()))?;
    let root: Root<'_> = object(config.root.get())?;
    let linux: Option<Linux<'_>> = match config.linux {
        Some(linux) => Some(object(linux.get())?),
        None => None,
    };
    if let Some(annotations) = config.annotations {
        let _: BTreeMap<Cow<'_, str>, String> = object(annotations.get())?;
    }
    let of_linux = linux.iter().flat_map(|linux| [linux.resources, linux.seccomp]);
    let objects = of_linux
        .chain([config.hooks, process.capabilities])
        .flatten()
        .all(is_object);
    let lists = are_objects(&config.mounts)
        && are_objects(&process.rlimits)
        && linux.as_ref().is_none_or(|linux| are_objects(&linux.namespaces));
    let runs = !process.args.is_empty() && process.cwd.starts_with('/');
    let as_asked = process.terminal.unwrap_or(false) == terminal;
    (objects && lists && runs && as_asked).then(|| (PathBuf::from(root.path.as_ref()), config.process.get().into()))
}
