//! The API's messages as the JSON that `--json` prints. The field names are a promise: docs/cli.md lists them.
//! Times are RFC 3339 in UTC or null, enums are their names in lower case, sizes are bytes.

use base64::Engine as _;
use berth_wire::v1::{
    Container, ContainerState, ContainerStats, Event, EventKind, ExitReason, ExitStatus, LogEntry, Resources, Stage,
    Stdio, Stream, VersionResponse, stdio::To,
};
use serde_json::{Value, json};

use crate::human::rfc3339;

/// "CONTAINER_STATE_RUNNING" → "running".
fn lower(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

pub fn state(state: ContainerState) -> String {
    lower(state.as_str_name(), "CONTAINER_STATE_")
}

pub fn kind(kind: EventKind) -> String {
    lower(kind.as_str_name(), "EVENT_KIND_")
}

pub fn reason(reason: ExitReason) -> String {
    lower(reason.as_str_name(), "EXIT_REASON_")
}

pub fn stream(stream: Stream) -> Value {
    match stream {
        Stream::Unspecified => Value::Null,
        stream => json!(lower(stream.as_str_name(), "STREAM_")),
    }
}

pub fn exit(status: &ExitStatus) -> Value {
    json!({
        "code": status.code,
        "signal": status.signal,
        "reason": reason(status.reason()),
        "exited_at": rfc3339(status.exited_at),
        "message": status.message,
    })
}

pub fn maybe_exit(status: Option<&ExitStatus>) -> Value {
    status.map_or(Value::Null, exit)
}

fn stages(stages: &[Stage]) -> Value {
    stages
        .iter()
        .map(|stage| json!({ "name": stage.name, "duration_us": stage.duration_us }))
        .collect()
}

fn stdio(stdio: Option<&Stdio>) -> Value {
    let Some(stdio) = stdio else { return Value::Null };
    let mut object = match &stdio.to {
        None => json!({ "kind": null }),
        Some(To::Null(_)) => json!({ "kind": "null" }),
        Some(To::Fifo(fifo)) => {
            json!({ "kind": "fifo", "stdin": fifo.stdin, "stdout": fifo.stdout, "stderr": fifo.stderr })
        }
        Some(To::File(file)) => json!({ "kind": "file", "path": file.path }),
        Some(To::Logger(logger)) => json!({ "kind": "logger", "program": logger.program, "args": logger.args }),
        Some(To::Log(log)) => json!({
            "kind": "log",
            "format": lower(log.format().as_str_name(), "LOG_FORMAT_"),
            "policy": lower(log.policy().as_str_name(), "LOG_POLICY_"),
            "max_size": log.max_size,
            "max_files": log.max_files,
            "stdin": log.stdin,
            "discard": log.discard,
        }),
    };
    object["terminal"] = json!(stdio.terminal);
    object
}

/// Only what has a limit.
fn limits(limits: &Resources) -> Value {
    let all = [
        ("memory", limits.memory_limit.map(Value::from)),
        ("memory_swap", limits.memory_swap.map(Value::from)),
        ("memory_reservation", limits.memory_reservation.map(Value::from)),
        ("cpu_shares", limits.cpu_shares.map(Value::from)),
        ("cpu_quota", limits.cpu_quota.map(Value::from)),
        ("cpu_period", limits.cpu_period.map(Value::from)),
        ("cpuset_cpus", limits.cpuset_cpus.clone().map(Value::from)),
        ("cpuset_mems", limits.cpuset_mems.clone().map(Value::from)),
        ("pids", limits.pids_limit.map(Value::from)),
        ("blkio_weight", limits.blkio_weight.map(Value::from)),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
    Value::Object(set.collect())
}

pub fn container(container: &Container) -> Value {
    let execs = container.execs.iter().map(|exec| {
        json!({
            "exec_id": exec.exec_id,
            "pid": exec.pid,
            "running": exec.running,
            "started_at": rfc3339(exec.started_at),
            "terminal": exec.terminal,
            "exit": maybe_exit(exec.exit.as_ref()),
        })
    });
    let processes = container
        .processes
        .iter()
        .map(|process| json!({ "pid": process.pid, "exec_id": process.exec_id, "command": process.command }));
    json!({
        "namespace": container.namespace,
        "id": container.id,
        "incarnation": container.incarnation,
        "bundle": container.bundle,
        "runtime": container.runtime,
        "labels": container.labels,
        "state": state(container.state()),
        "pid": container.pid,
        "shim_pid": container.shim_pid,
        "created_at": rfc3339(container.created_at),
        "started_at": rfc3339(container.started_at),
        "exit": maybe_exit(container.exit.as_ref()),
        "execs": execs.collect::<Value>(),
        "processes": processes.collect::<Value>(),
        "stdio": stdio(container.stdio.as_ref()),
        "stop_signal": container.stop_signal,
        "stop_timeout_ms": container.stop_timeout_ms,
        "restart": {
            "policy": lower(container.restart().as_str_name(), "RESTART_POLICY_").replace('_', "-"),
            "max": container.restart_max,
            "count": container.restart_count,
            "next_at": rfc3339(container.restart_at),
        },
        "remove": container.remove,
        "limits": container.limits.as_ref().map(limits),
        "cgroup": container.cgroup,
        "log_path": container.log_path,
        "log_dropped_bytes": container.log_dropped_bytes,
        "oom_kills": container.oom_kills,
        "stages": stages(&container.stages),
    })
}

pub fn event(event: &Event) -> Value {
    json!({
        "cursor": event.cursor,
        "number": event.number,
        "at": rfc3339(event.at),
        "kind": kind(event.kind()),
        "namespace": event.namespace,
        "id": event.id,
        "incarnation": event.incarnation,
        "exec_id": event.exec_id,
        "pid": event.pid,
        "exit": maybe_exit(event.exit.as_ref()),
        "stages": stages(&event.stages),
        "message": event.message,
    })
}

/// `data` where the bytes are text, `data_base64` where not.
pub fn log_entry(entry: &LogEntry) -> Value {
    let mut object = json!({ "time": rfc3339(entry.time), "stream": stream(entry.stream()), "cursor": entry.cursor, "gap": entry.gap });
    match std::str::from_utf8(&entry.data) {
        Ok(text) => object["data"] = json!(text),
        Err(_) => object["data_base64"] = json!(base64::engine::general_purpose::STANDARD.encode(&entry.data)),
    }
    object
}

pub fn stats(at: i64, stats: &ContainerStats, cpu_percent: Option<f64>) -> Value {
    let networks = stats.networks.iter().map(|network| {
        json!({
            "interface": network.interface,
            "rx_bytes": network.rx_bytes,
            "rx_packets": network.rx_packets,
            "rx_errors": network.rx_errors,
            "rx_dropped": network.rx_dropped,
            "tx_bytes": network.tx_bytes,
            "tx_packets": network.tx_packets,
            "tx_errors": network.tx_errors,
            "tx_dropped": network.tx_dropped,
        })
    });
    json!({
        "at": rfc3339(at),
        "namespace": stats.namespace,
        "id": stats.id,
        "cpu_percent": cpu_percent,
        "cpu_ns": stats.cpu_ns,
        "cpu_user_ns": stats.cpu_user_ns,
        "cpu_system_ns": stats.cpu_system_ns,
        "cpu_throttled_ns": stats.cpu_throttled_ns,
        "cpu_periods": stats.cpu_periods,
        "cpu_throttled_periods": stats.cpu_throttled_periods,
        "memory_bytes": stats.memory_bytes,
        "memory_working_set_bytes": stats.memory_working_set_bytes,
        "memory_limit_bytes": stats.memory_limit_bytes,
        "memory_peak_bytes": stats.memory_peak_bytes,
        "swap_bytes": stats.swap_bytes,
        "pids": stats.pids,
        "pids_limit": stats.pids_limit,
        "io_read_bytes": stats.io_read_bytes,
        "io_write_bytes": stats.io_write_bytes,
        "io_reads": stats.io_reads,
        "io_writes": stats.io_writes,
        "oom_kills": stats.oom_kills,
        "networks": networks.collect::<Value>(),
    })
}

pub fn version(client: &str, daemon: &VersionResponse) -> Value {
    let runtimes = daemon.runtimes.iter().map(|runtime| {
        json!({ "name": runtime.name, "path": runtime.path, "version": runtime.version, "default": runtime.default })
    });
    json!({
        "client": { "version": client },
        "daemon": { "version": daemon.version, "revision": daemon.revision, "api_minor": daemon.api_minor, "runtimes": runtimes.collect::<Value>(), "state": daemon.state, "root": daemon.root },
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn enums_have_short_names() {
        assert_eq!(state(ContainerState::Running), "running");
        assert_eq!(kind(EventKind::ExecExited), "exec_exited");
        assert_eq!(reason(ExitReason::Oom), "oom");
        assert_eq!(stream(Stream::Stderr), json!("stderr"));
        assert_eq!(stream(Stream::Unspecified), Value::Null);
    }

    #[test]
    fn a_container_keeps_its_field_names() {
        let sample = Container {
            namespace: "default".into(),
            id: "web".into(),
            state: ContainerState::Stopped as i32,
            started_at: 1_500_000_000,
            exit: Some(ExitStatus {
                code: 137,
                signal: 9,
                reason: ExitReason::Signaled as i32,
                ..Default::default()
            }),
            stdio: Some(Stdio {
                to: Some(To::Null(Default::default())),
                terminal: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        let value = container(&sample);
        let names: Vec<_> = value.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "bundle",
                "cgroup",
                "created_at",
                "execs",
                "exit",
                "id",
                "incarnation",
                "labels",
                "limits",
                "log_dropped_bytes",
                "log_path",
                "namespace",
                "oom_kills",
                "pid",
                "processes",
                "remove",
                "restart",
                "runtime",
                "shim_pid",
                "stages",
                "started_at",
                "state",
                "stdio",
                "stop_signal",
                "stop_timeout_ms"
            ]
        );
        assert_eq!(
            value["exit"],
            json!({ "code": 137, "signal": 9, "reason": "signaled", "exited_at": null, "message": "" })
        );
        assert_eq!(value["stdio"], json!({ "kind": "null", "terminal": true }));
        assert_eq!(
            (&value["created_at"], &value["started_at"]),
            (&Value::Null, &json!("1970-01-01T00:00:01.500000000Z"))
        );
    }

    #[test]
    fn log_data_that_is_not_text_is_base64() {
        let entry = LogEntry {
            data: vec![0xff, 0x00].into(),
            stream: Stream::Stdout as i32,
            ..Default::default()
        };
        assert_eq!(
            log_entry(&entry),
            json!({ "time": null, "stream": "stdout", "cursor": "", "gap": false, "data_base64": "/wA=" })
        );
        let entry = LogEntry {
            data: b"hi\n".as_slice().into(),
            ..Default::default()
        };
        assert_eq!(log_entry(&entry)["data"], "hi\n");
    }
}
