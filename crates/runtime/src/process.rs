//! The process object of an exec: the init's own with what the caller wants otherwise.
//!
//! A user may be given by name. Names are looked up in the container's own /etc/passwd and /etc/group, files that the
//! container controls: they are opened without leaving its root, read up to a bound, and only numbers come out of them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::BorrowedFd,
    path::Path,
};

use berth_sys::inroot;
use serde_json::{Map, Value, json};

use crate::Error;

/// Of /etc/passwd and /etc/group each.
const TABLE_LIMIT: u64 = 4 << 20;

/// What an exec has instead of the init's own. Empty or None = as the init.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Must not be empty.
    pub args: Vec<String>,
    /// `NAME=VALUE`: replaces the variable of that name, or adds it. A bare `NAME` removes it.
    pub env: Vec<String>,
    pub cwd: String,
    /// `USER[:GROUP]`, each a name or a number.
    pub user: String,
    pub additional_gids: Vec<u32>,
    /// Replaces all of the process's sets but the inheritable and ambient ones, which become empty.
    pub capabilities: Option<Vec<String>>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// Makes the process object of an exec. `init` is the init's own (`Bundle::process`), `root` the container's root folder as
/// it sees it (`/proc/PID/root`), needed for names only.
pub fn exec_process(
    init: &[u8],
    overrides: &Overrides,
    terminal: bool,
    root: Option<BorrowedFd<'_>>,
) -> Result<Vec<u8>, Error> {
    let mut process: Map<String, Value> = serde_json::from_slice(init).map_err(|error| {
        invalid(format!(
            "the init's own process object is not what it should be: {error}"
        ))
    })?;
    if overrides.args.is_empty() || overrides.args[0].is_empty() {
        return Err(invalid("args: there is nothing to run".into()));
    }
    process.insert("args".into(), json!(overrides.args));
    process.insert("terminal".into(), json!(terminal));
    // The size of the init's terminal says nothing about this one's; runtimes would set it.
    process.remove("consoleSize");
    merge_env(&mut process, &overrides.env)?;
    if !overrides.cwd.is_empty() {
        if !overrides.cwd.starts_with('/') {
            return Err(invalid(format!("cwd {:?} is not an absolute path", overrides.cwd)));
        }
        process.insert("cwd".into(), json!(overrides.cwd));
    }
    set_user(&mut process, overrides, root)?;
    if let Some(names) = &overrides.capabilities {
        let names = names
            .iter()
            .map(|name| capability(name))
            .collect::<Result<Vec<_>, _>>()?;
        let sets = json!({"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []});
        process.insert("capabilities".into(), sets);
    }
    if !overrides.rlimits.is_empty() {
        set_rlimits(&mut process, &overrides.rlimits)?;
    }
    if let Some(on) = overrides.no_new_privileges {
        process.insert("noNewPrivileges".into(), json!(on));
    }
    Ok(Value::Object(process).to_string().into_bytes())
}

/// Checks a whole process object that the caller made.
pub fn check_process(process: &[u8], terminal: bool) -> Result<(), Error> {
    let process: Map<String, Value> =
        serde_json::from_slice(process).map_err(|error| invalid(format!("process_json: {error}")))?;
    let args = process.get("args").and_then(Value::as_array);
    if !args.is_some_and(|args| !args.is_empty() && args.iter().all(Value::is_string)) {
        return Err(invalid(
            "process_json: args: a list of strings that is not empty expected".into(),
        ));
    }
    if !process
        .get("cwd")
        .and_then(Value::as_str)
        .is_some_and(|cwd| cwd.starts_with('/'))
    {
        return Err(invalid("process_json: cwd: an absolute path expected".into()));
    }
    if process.get("terminal").and_then(Value::as_bool).unwrap_or(false) != terminal {
        return Err(invalid(format!(
            "process_json: terminal is {}, but the request's stdio says otherwise",
            !terminal
        )));
    }
    Ok(())
}

fn invalid(problem: String) -> Error {
    Error::Invalid {
        operation: "exec",
        problem,
    }
}

fn merge_env(process: &mut Map<String, Value>, wanted: &[String]) -> Result<(), Error> {
    fn name_of(var: &str) -> &str {
        var.split_once('=').map_or(var, |(name, _)| name)
    }
    let mut env: Vec<String> = match process.get("env") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    for var in wanted {
        if name_of(var).is_empty() || var.contains('\0') {
            return Err(invalid(format!("env {var:?}: NAME=VALUE expected")));
        }
        env.retain(|old| name_of(old) != name_of(var));
        if var.contains('=') {
            env.push(var.clone());
        }
    }
    process.insert("env".into(), json!(env));
    Ok(())
}

fn set_user(
    process: &mut Map<String, Value>,
    overrides: &Overrides,
    root: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    if overrides.user.is_empty() && overrides.additional_gids.is_empty() {
        return Ok(());
    }
    let mut user = match process.remove("user") {
        Some(Value::Object(user)) => user,
        _ => Map::new(),
    };
    if !overrides.user.is_empty() {
        let ids = look_up(&overrides.user, root)?;
        user.insert("uid".into(), json!(ids.uid));
        user.insert("gid".into(), json!(ids.gid));
        user.insert("additionalGids".into(), json!(ids.groups));
    }
    if !overrides.additional_gids.is_empty() {
        user.insert("additionalGids".into(), json!(overrides.additional_gids));
    }
    process.insert("user".into(), Value::Object(user));
    Ok(())
}

/// The kernel's names (linux/capability.h): a runtime leaves out what it does not know, and the user would think that it was granted.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn capability(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if !CAPABILITIES.contains(&bare) {
        return Err(invalid(format!(
            "capability {name:?}: unknown; a name such as CAP_NET_ADMIN expected"
        )));
    }
    Ok(format!("CAP_{bare}"))
}

fn set_rlimits(process: &mut Map<String, Value>, wanted: &[Rlimit]) -> Result<(), Error> {
    let mut limits = match process.remove("rlimits") {
        Some(Value::Array(limits)) => limits,
        _ => Vec::new(),
    };
    for limit in wanted {
        let kind = limit.kind.to_ascii_uppercase();
        let kind = if kind.starts_with("RLIMIT_") {
            kind
        } else {
            format!("RLIMIT_{kind}")
        };
        if limit.soft > limit.hard {
            return Err(invalid(format!(
                "{kind}: soft limit {} is above the hard one, {}",
                limit.soft, limit.hard
            )));
        }
        limits.retain(|old| old["type"] != kind.as_str());
        limits.push(json!({"type": kind, "soft": limit.soft, "hard": limit.hard}));
    }
    process.insert("rlimits".into(), json!(limits));
    Ok(())
}

struct Ids {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// As Docker does: the user's own group and those that list it, unless a group is given.
fn look_up(wanted: &str, root: Option<BorrowedFd<'_>>) -> Result<Ids, Error> {
    let (user, group) = wanted
        .split_once(':')
        .map_or((wanted, None), |(user, group)| (user, Some(group)));
    let number = |text: &str| text.parse::<u32>().ok().filter(|&id| id < u32::MAX);
    let passwd = table(root, "etc/passwd")?;
    let known = passwd.iter().find(|line| match number(user) {
        Some(uid) => line.get(2).and_then(|field| number(field)) == Some(uid),
        None => line.first().map(String::as_str) == Some(user),
    });
    let field = |index: usize| known.and_then(|line| line.get(index)).and_then(|field| number(field));
    let uid = number(user).or_else(|| field(2));
    let uid = uid.ok_or_else(|| invalid(format!("user {user:?} is not in the container's /etc/passwd")))?;
    let gid = field(3).unwrap_or(0);
    let Some(group) = group else {
        let name = known.and_then(|line| line.first()).cloned().unwrap_or_default();
        let lists = |line: &&Vec<String>| {
            line.get(3)
                .is_some_and(|list| list.split(',').any(|entry| entry == name))
        };
        let table = if name.is_empty() {
            Vec::new()
        } else {
            table(root, "etc/group")?
        };
        let groups = table
            .iter()
            .filter(lists)
            .filter_map(|line| number(line.get(2)?))
            .filter(|&other| other != gid);
        return Ok(Ids {
            uid,
            gid,
            groups: groups.collect(),
        });
    };
    let named = |line: &Vec<String>| line.first().map(String::as_str) == Some(group);
    let gid = match number(group) {
        Some(gid) => Some(gid),
        None => table(root, "etc/group")?
            .iter()
            .find(|line| named(line))
            .and_then(|line| number(line.get(2)?)),
    };
    let gid = gid.ok_or_else(|| invalid(format!("group {group:?} is not in the container's /etc/group")))?;
    Ok(Ids {
        uid,
        gid,
        groups: Vec::new(),
    })
}

/// The lines of a file such as /etc/passwd, split at colons. A missing file has none.
fn table(root: Option<BorrowedFd<'_>>, path: &str) -> Result<Vec<Vec<String>>, Error> {
    let fail = |problem: String| invalid(format!("the container's /{path}: {problem}"));
    let Some(root) = root else { return Ok(Vec::new()) };
    let file = match inroot::open_read(root, Path::new(path)) {
        Ok(fd) => File::from(fd),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail(error.to_string())),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(fail("not a regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(TABLE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > TABLE_LIMIT {
        return Err(fail(format!("longer than {TABLE_LIMIT} bytes")));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .map(|line| line.trim().split(':').map(str::to_owned).collect())
        .collect())
}

#[cfg(test)]
mod test {
    use std::os::{fd::AsFd, unix::fs::symlink};

    use super::*;
    use crate::testing::Folder;

    const INIT: &[u8] = br#"{"args":["init"],"cwd":"/","env":["A=1","B=2"],"user":{"uid":0,"gid":0},
        "terminal":true,"consoleSize":{"height":1,"width":1},"capabilities":{"bounding":["CAP_KILL"]},
        "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}]}"#;

    fn made(overrides: &Overrides, root: Option<BorrowedFd<'_>>) -> Value {
        serde_json::from_slice(&exec_process(INIT, overrides, false, root).expect("good")).expect("json")
    }

    fn with(change: impl FnOnce(&mut Overrides)) -> Overrides {
        let mut overrides = Overrides {
            args: vec!["sh".into()],
            ..Overrides::default()
        };
        change(&mut overrides);
        overrides
    }

    #[test]
    fn what_is_not_given_is_the_inits() {
        let process = made(&with(|_| {}), None);
        assert_eq!(process["args"], json!(["sh"]));
        assert_eq!(process["terminal"], json!(false));
        assert_eq!(process["env"], json!(["A=1", "B=2"]));
        assert_eq!(process["capabilities"], json!({"bounding": ["CAP_KILL"]}));
        assert_eq!(process.get("consoleSize"), None);
    }

    #[test]
    fn what_is_given_replaces() {
        let process = made(
            &with(|o| {
                o.env = vec!["A=x=y".into(), "C=3".into(), "B".into()];
                o.cwd = "/tmp".into();
                o.capabilities = Some(vec!["net_admin".into(), "CAP_CHOWN".into()]);
                o.rlimits = vec![Rlimit {
                    kind: "NOFILE".into(),
                    soft: 3,
                    hard: 4,
                }];
                o.no_new_privileges = Some(true);
                o.user = "12:34".into();
            }),
            None,
        );
        assert_eq!(process["env"], json!(["A=x=y", "C=3"]));
        assert_eq!(process["cwd"], json!("/tmp"));
        assert_eq!(
            process["capabilities"]["effective"],
            json!(["CAP_NET_ADMIN", "CAP_CHOWN"])
        );
        assert_eq!(process["capabilities"]["inheritable"], json!([]));
        assert_eq!(
            process["rlimits"],
            json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 4}])
        );
        assert_eq!(process["noNewPrivileges"], json!(true));
        assert_eq!(process["user"], json!({"uid": 12, "gid": 34, "additionalGids": []}));
    }

    #[test]
    fn mistakes_are_named() {
        let told = |overrides: &Overrides| exec_process(INIT, overrides, false, None).expect_err("bad").to_string();
        assert_eq!(told(&Overrides::default()), "exec: args: there is nothing to run");
        assert_eq!(
            told(&with(|o| o.env = vec!["=x".into()])),
            "exec: env \"=x\": NAME=VALUE expected"
        );
        assert_eq!(
            told(&with(|o| o.cwd = "x".into())),
            "exec: cwd \"x\" is not an absolute path"
        );
        assert_eq!(
            told(&with(|o| o.user = "joe".into())),
            "exec: user \"joe\" is not in the container's /etc/passwd"
        );
        assert_eq!(
            told(&with(|o| o.user = "4294967295".into())).split(' ').nth(1),
            Some("user")
        );
        assert!(told(&with(|o| o.capabilities = Some(vec!["a b".into()]))).contains("capability"));
        assert!(check_process(b"{}", false).is_err());
        assert!(check_process(br#"{"args":["a"],"cwd":"/","terminal":true}"#, false).is_err());
        assert!(check_process(br#"{"args":["a"],"cwd":"/"}"#, false).is_ok());
    }

    #[test]
    fn names_are_the_containers_and_stay_in_its_root() {
        let folder = Folder::new();
        let etc = folder.path().join("etc");
        std::fs::create_dir(&etc).expect("folder");
        std::fs::write(
            etc.join("passwd"),
            "root:x:0:0::/:/bin/sh\njoe:x:1000:100:::\ngarbage\n::::\n",
        )
        .expect("write");
        std::fs::write(etc.join("group"), "users:x:100:\nwheel:x:10:root,joe\naudio:x:29:joe\n").expect("write");
        let root = File::open(folder.path()).expect("open");
        let user = |name: &str| made(&with(|o| o.user = name.into()), Some(root.as_fd()))["user"].clone();
        assert_eq!(
            user("joe"),
            json!({"uid": 1000, "gid": 100, "additionalGids": [10, 29]})
        );
        assert_eq!(
            user("1000"),
            json!({"uid": 1000, "gid": 100, "additionalGids": [10, 29]})
        );
        assert_eq!(user("joe:wheel"), json!({"uid": 1000, "gid": 10, "additionalGids": []}));
        assert_eq!(user("77"), json!({"uid": 77, "gid": 0, "additionalGids": []}));
        // A link that would name the host's file names nothing inside the root.
        std::fs::remove_file(etc.join("passwd")).expect("remove");
        let host = Folder::new();
        std::fs::write(host.path().join("passwd"), "evil:x:0:0:::\n").expect("write");
        symlink(host.path().join("passwd"), etc.join("passwd")).expect("link");
        let evil = with(|o| o.user = "evil".into());
        assert!(exec_process(INIT, &evil, false, Some(root.as_fd())).is_err());
    }
}
