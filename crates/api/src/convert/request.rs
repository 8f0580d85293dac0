//! Requests, checked.

use std::collections::{BTreeMap, HashMap};

use berth_core::{ContainerId, EventKind, LogSpec, Namespace, RestartPolicy, StdioTo, Stream};
use berth_supervisor::{
    AttachInput, Error, EventQuery, ExecOverrides, ExecProcess, ExecSpec, LogQuery, Resources, Rlimit, RunSpec,
    RuntimeOptions, Since, StatsQuery, StopSpec, Update,
};
use berth_wire::v1;

use super::{HOUR_MS, Subject};

const MAX_LABELS: usize = 64 << 10;
const MAX_LABEL_KEY: usize = 256;
const MAX_STDIN: usize = 1 << 20;

/// Of Run and Create.
pub fn spec(subject: &Subject, spec: v1::ContainerSpec) -> Result<RunSpec, Error> {
    let key = subject.key(&spec.namespace, &spec.id)?;
    if spec.bundle.is_empty() {
        return Err(subject.refuse(
            "container.bundle",
            "empty",
            "the absolute path of a folder with config.json",
        ));
    }
    let bundle = subject.absolute_path("container.bundle", &spec.bundle)?;
    let restart = restart(subject, "container.restart", spec.restart, spec.restart_max)?;
    if spec.remove && restart != RestartPolicy::No {
        return Err(subject.refuse("container.remove", true, "false where there is a restart policy"));
    }
    if spec.runtime.len() >= 4096 || spec.runtime.contains('\0') {
        return Err(subject.refuse(
            "container.runtime",
            format!("{:?}", spec.runtime),
            "the name of a configured runtime",
        ));
    }
    let start_timeout = match spec.start_timeout_ms {
        0 => None,
        ms => Some(subject.milliseconds("container.start_timeout_ms", ms, 1)?),
    };
    Ok(RunSpec {
        key,
        bundle,
        runtime: spec.runtime,
        stdio: subject.stdio(spec.stdio, StdioTo::Log(LogSpec::default()))?,
        labels: labels(subject, "container.labels", spec.labels)?,
        stop_signal: subject.optional_signal(&spec.stop_signal)?,
        stop_timeout: spec
            .stop_timeout_ms
            .map(|ms| subject.milliseconds("container.stop_timeout_ms", ms, 0))
            .transpose()?,
        start_timeout,
        made: None,
        runtime_options: RuntimeOptions::default(),
        restart,
        remove: spec.remove,
        init: spec.init,
    })
}

/// `FIELD` and `FIELD_max`.
pub fn restart(subject: &Subject, field: &str, policy: i32, max: u32) -> Result<RestartPolicy, Error> {
    let policy = match v1::RestartPolicy::try_from(policy) {
        Ok(v1::RestartPolicy::Unspecified | v1::RestartPolicy::No) => RestartPolicy::No,
        Ok(v1::RestartPolicy::OnFailure) => return Ok(RestartPolicy::OnFailure { max }),
        Ok(v1::RestartPolicy::Always) => RestartPolicy::Always,
        Ok(v1::RestartPolicy::UnlessStopped) => RestartPolicy::UnlessStopped,
        Err(_) => return Err(subject.refuse(field, policy, "a RestartPolicy, 0 to 4")),
    };
    match max {
        0 => Ok(policy),
        max => Err(subject.refuse(&format!("{field}_max"), max, "0 where the policy is not ON_FAILURE")),
    }
}

fn labels(subject: &Subject, field: &str, labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let size: usize = labels.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_LABELS {
        return Err(subject.refuse(field, format!("{size} bytes"), "at most 65536 bytes in all"));
    }
    if let Some(key) = labels.keys().find(|k| k.is_empty() || k.len() > MAX_LABEL_KEY) {
        return Err(subject.refuse(field, format!("the key {key:?}"), "keys of 1 to 256 bytes"));
    }
    Ok(labels.into_iter().collect())
}

/// All that Linux has. A runtime passes over a name that it does not know, and the process would silently lack it.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

pub fn exec(subject: &Subject, request: v1::ExecRequest) -> Result<ExecSpec, Error> {
    let stdio = subject.stdio(request.stdio, StdioTo::Null)?;
    let exec_id = subject.exec(&request.exec_id)?;
    let names = request.capabilities.iter().flat_map(|set| &set.names);
    if let Some(name) = names.into_iter().find(|name| !CAPABILITIES.contains(&name.as_str())) {
        return Err(subject.refuse("capabilities", name, "names of Linux capabilities, such as CAP_NET_RAW"));
    }
    let overrides = ExecOverrides {
        args: request.args,
        env: request.env,
        cwd: request.cwd,
        user: request.user,
        additional_gids: request.additional_gids,
        capabilities: request.capabilities.map(|set| set.names),
        rlimits: request
            .rlimits
            .into_iter()
            .map(|r| Rlimit {
                kind: r.r#type,
                soft: r.soft,
                hard: r.hard,
            })
            .collect(),
        no_new_privileges: request.no_new_privileges,
    };
    let process = if request.process_json.is_empty() {
        check_overrides(subject, &overrides)?;
        ExecProcess::Overrides(overrides)
    } else {
        let given = [
            ("args", !overrides.args.is_empty()),
            ("env", !overrides.env.is_empty()),
            ("cwd", !overrides.cwd.is_empty()),
            ("user", !overrides.user.is_empty()),
            ("additional_gids", !overrides.additional_gids.is_empty()),
            ("capabilities", overrides.capabilities.is_some()),
            ("rlimits", !overrides.rlimits.is_empty()),
        ];
        if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
            return Err(subject.refuse(field, "set beside process_json", "one of the two"));
        }
        ExecProcess::Json(request.process_json.into())
    };
    Ok(ExecSpec {
        exec_id,
        process,
        stdio,
    })
}

fn check_overrides(subject: &Subject, overrides: &ExecOverrides) -> Result<(), Error> {
    if overrides.args.first().is_none_or(String::is_empty) {
        return Err(subject.refuse("args", "empty", "the command and its arguments"));
    }
    let nul = |values: &[String]| values.iter().any(|v| v.contains('\0'));
    if nul(&overrides.args) {
        return Err(subject.refuse("args", "a text with NUL", "texts without NUL"));
    }
    if let Some(bad) = overrides
        .env
        .iter()
        .find(|e| e.contains('\0') || e.find('=').is_none_or(|at| at == 0))
    {
        return Err(subject.refuse("env", format!("{bad:?}"), "NAME=value"));
    }
    if !overrides.cwd.is_empty() {
        subject.absolute_path("cwd", &overrides.cwd)?;
    }
    if overrides.user.contains('\0') || overrides.user.len() > 512 {
        return Err(subject.refuse("user", format!("{:?}", overrides.user), "\"uid\", \"uid:gid\" or names"));
    }
    for limit in &overrides.rlimits {
        let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or_default();
        if !RLIMITS.contains(&name) {
            let allowed = format!("RLIMIT_ and one of {}", RLIMITS.join(", "));
            return Err(subject.refuse("rlimits.type", format!("{:?}", limit.kind), &allowed));
        }
        if limit.soft > limit.hard {
            return Err(subject.refuse(
                "rlimits.soft",
                limit.soft,
                &format!("at most its hard limit, {}", limit.hard),
            ));
        }
    }
    Ok(())
}

const RLIMITS: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

pub fn stop(subject: &Subject, timeout_ms: Option<u32>, signal: &str) -> Result<StopSpec, Error> {
    Ok(StopSpec {
        timeout: timeout_ms
            .map(|ms| subject.milliseconds("timeout_ms", ms, 0))
            .transpose()?,
        signal: subject.optional_signal(signal)?,
    })
}

pub fn update(subject: &Subject, request: v1::UpdateRequest) -> Result<Update, Error> {
    match (request.resources, request.resources_json.is_empty()) {
        (Some(_), false) => Err(subject.refuse("resources", "set beside resources_json", "one of the two")),
        (None, true) => Err(subject.refuse("resources", "unset", "what is to change, here or in resources_json")),
        (None, false) => Ok(Update::Json(request.resources_json.into())),
        (Some(resources), true) => self::resources(subject, resources).map(Update::Fields),
    }
}

fn resources(subject: &Subject, r: v1::Resources) -> Result<Resources, Error> {
    let limit = |field: &str, value: Option<i64>| match value {
        Some(value) if value < -1 => Err(subject.refuse(field, value, "0 or more, -1 = no limit")),
        _ => Ok(()),
    };
    limit("resources.memory_limit", r.memory_limit)?;
    limit("resources.memory_swap", r.memory_swap)?;
    limit("resources.memory_reservation", r.memory_reservation)?;
    limit("resources.cpu_quota", r.cpu_quota)?;
    limit("resources.pids_limit", r.pids_limit)?;
    let range = |field: &str, value: Option<u64>, min: u64, max: u64| match value {
        Some(value) if !(min..=max).contains(&value) => Err(subject.refuse(field, value, &format!("{min} to {max}"))),
        _ => Ok(()),
    };
    range("resources.cpu_shares", r.cpu_shares, 2, 262_144)?;
    range("resources.cpu_period", r.cpu_period, 1_000, 1_000_000)?;
    range("resources.blkio_weight", r.blkio_weight.map(Into::into), 10, 1_000)?;
    for (field, list) in [
        ("resources.cpuset_cpus", &r.cpuset_cpus),
        ("resources.cpuset_mems", &r.cpuset_mems),
    ] {
        if let Some(list) = list
            && (list.len() > 4096 || !list.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-'))
        {
            return Err(subject.refuse(field, format!("{list:?}"), "numbers and ranges, as \"0-3,7\""));
        }
    }
    Ok(Resources {
        memory_limit: r.memory_limit,
        memory_swap: r.memory_swap,
        memory_reservation: r.memory_reservation,
        cpu_shares: r.cpu_shares,
        cpu_quota: r.cpu_quota,
        cpu_period: r.cpu_period,
        cpuset_cpus: r.cpuset_cpus,
        cpuset_mems: r.cpuset_mems,
        pids_limit: r.pids_limit,
        blkio_weight: r.blkio_weight,
    })
}

/// "*" = all, empty = the default one.
pub fn namespaces(subject: &Subject, namespace: &str) -> Result<Option<Namespace>, Error> {
    match namespace {
        "*" => Ok(None),
        name => Namespace::or_default(name).map(Some).map_err(|e| subject.wrap(&e)),
    }
}

pub fn list_labels(subject: &Subject, request: HashMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    labels(subject, "labels", request)
}

pub fn stats(subject: &Subject, request: &v1::StatsRequest) -> Result<StatsQuery, Error> {
    let namespace = Namespace::or_default(&request.namespace).map_err(|e| subject.wrap(&e))?;
    let ids = request
        .ids
        .iter()
        .map(|id| ContainerId::new(id).map_err(|e| subject.wrap(&e)));
    Ok(StatsQuery {
        namespace,
        ids: ids.collect::<Result<_, _>>()?,
        interval: match request.interval_ms {
            0 => None,
            ms if (100..=HOUR_MS).contains(&ms) => Some(std::time::Duration::from_millis(ms.into())),
            ms => return Err(subject.refuse("interval_ms", ms, "0 = once, or 100 to 3600000")),
        },
    })
}

pub fn logs(subject: &Subject, request: v1::LogsRequest) -> Result<LogQuery, Error> {
    let streams = request
        .streams
        .iter()
        .map(|stream| match v1::Stream::try_from(*stream) {
            Ok(v1::Stream::Stdout) => Ok(Stream::Stdout),
            Ok(v1::Stream::Stderr) => Ok(Stream::Stderr),
            Ok(v1::Stream::Unspecified) | Err(_) => Err(subject.refuse("streams", stream, "1 (stdout) and 2 (stderr)")),
        });
    for (field, time) in [("since", request.since), ("until", request.until)] {
        if time < 0 {
            return Err(subject.refuse(field, time, "nanoseconds since the Unix epoch, 0 = all"));
        }
    }
    Ok(LogQuery {
        key: subject.key(&request.namespace, &request.id)?,
        follow: request.follow,
        tail: request.tail,
        since: request.since,
        until: request.until,
        cursor: request.cursor,
        streams: streams.collect::<Result<_, _>>()?,
    })
}

pub fn events(subject: &Subject, request: v1::EventsRequest) -> Result<EventQuery, Error> {
    let since = match request.since.as_str() {
        "" => Since::Now,
        "0" => Since::Oldest,
        cursor => Since::After(cursor.parse().map_err(|_| {
            subject.refuse(
                "since",
                format!("{cursor:?}"),
                "EPOCH:NUMBER of an event, empty = live events, 0 = all history",
            )
        })?),
    };
    let id = match request.id.as_str() {
        "" => None,
        id => Some(ContainerId::new(id).map_err(|e| subject.wrap(&e))?),
    };
    let kinds = request.kinds.iter().map(|kind| {
        u32::try_from(*kind)
            .ok()
            .and_then(EventKind::from_number)
            .ok_or_else(|| subject.refuse("kinds", kind, &format!("1 to {}", EventKind::ALL.len())))
    });
    Ok(EventQuery {
        namespace: namespaces(subject, &request.namespace)?,
        since,
        id,
        history_only: request.history_only,
        kinds: kinds.collect::<Result<_, _>>()?,
    })
}

/// What follows the first message of Attach.
pub fn attach_input(subject: &Subject, request: v1::AttachRequest) -> Result<AttachInput, Error> {
    use v1::attach_request::Action;
    match request.action {
        Some(Action::Stdin(bytes)) if bytes.len() <= MAX_STDIN => Ok(AttachInput::Stdin(bytes.into())),
        Some(Action::Stdin(bytes)) => {
            Err(subject.refuse("stdin", format!("{} bytes", bytes.len()), "at most 1 MiB a message"))
        }
        Some(Action::CloseStdin(true)) => Ok(AttachInput::CloseStdin),
        Some(Action::CloseStdin(false)) => Err(subject.refuse("close_stdin", "false", "true")),
        Some(Action::Resize(size)) => {
            let size = subject.size("resize.width", size.width, "resize.height", size.height, false)?;
            Ok(AttachInput::Resize(size))
        }
        Some(Action::Open(_)) => Err(subject.refuse("open", "set again", "only in the first message")),
        None => Err(subject.refuse("action", "unset", "stdin, close_stdin or resize")),
    }
}

#[cfg(test)]
#[path = "request_test.rs"]
mod test;
