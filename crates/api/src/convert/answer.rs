//! Answers, as messages.

use berth_core::{EventKind, ExitReason, ExitStatus, RestartPolicy, Signal, Stream};
use berth_supervisor::{
    AttachOpened, AttachOutput, ContainerState, ContainerStats, ContainerView, Deleted, EventItem, ExecView, LogEntry,
    ProcessInfo, Resources, RuntimeInfo, Stage, StatsSample,
};
use berth_wire::v1;

pub fn exit(exit: ExitStatus) -> v1::ExitStatus {
    let reason = match exit.reason {
        ExitReason::Exited => v1::ExitReason::Exited,
        ExitReason::Signaled => v1::ExitReason::Signaled,
        ExitReason::Oom => v1::ExitReason::Oom,
        ExitReason::StartFailed => v1::ExitReason::StartFailed,
        ExitReason::Lost => v1::ExitReason::Lost,
        ExitReason::Reboot => v1::ExitReason::Reboot,
    };
    v1::ExitStatus {
        code: exit.code.into(),
        signal: exit.signal.map_or(0, Signal::number),
        reason: reason.into(),
        exited_at: exit.exited_at,
        message: exit.message,
    }
}

pub fn deleted(deleted: Deleted) -> v1::DeleteResponse {
    v1::DeleteResponse {
        exit: deleted.exit.map(exit),
        pending: !deleted.left.is_empty(),
        message: deleted.left.join("; "),
    }
}

fn state(state: ContainerState) -> v1::ContainerState {
    match state {
        ContainerState::Queued => v1::ContainerState::Queued,
        ContainerState::Creating => v1::ContainerState::Creating,
        ContainerState::Created => v1::ContainerState::Created,
        ContainerState::Starting => v1::ContainerState::Starting,
        ContainerState::Running => v1::ContainerState::Running,
        ContainerState::Paused => v1::ContainerState::Paused,
        ContainerState::Stopped => v1::ContainerState::Stopped,
        ContainerState::Restarting => v1::ContainerState::Restarting,
        ContainerState::Deleting => v1::ContainerState::Deleting,
    }
}

fn stage(stage: Stage) -> v1::Stage {
    v1::Stage {
        name: stage.name,
        duration_us: u64::try_from(stage.duration.as_micros()).unwrap_or(u64::MAX),
    }
}

fn exec(exec: ExecView) -> v1::ExecInfo {
    v1::ExecInfo {
        exec_id: exec.exec_id.to_string(),
        pid: exec.pid,
        running: exec.exit.is_none(),
        started_at: exec.started_at,
        exit: exec.exit.map(exit),
        terminal: exec.terminal,
    }
}

fn process(process: ProcessInfo) -> v1::ProcessInfo {
    v1::ProcessInfo {
        pid: process.pid,
        exec_id: process.exec_id.map(|id| id.to_string()).unwrap_or_default(),
        command: process.command,
    }
}

fn restart(policy: RestartPolicy) -> (v1::RestartPolicy, u32) {
    match policy {
        RestartPolicy::No => (v1::RestartPolicy::No, 0),
        RestartPolicy::OnFailure { max } => (v1::RestartPolicy::OnFailure, max),
        RestartPolicy::Always => (v1::RestartPolicy::Always, 0),
        RestartPolicy::UnlessStopped => (v1::RestartPolicy::UnlessStopped, 0),
    }
}

fn limits(of: Resources) -> v1::Resources {
    v1::Resources {
        memory_limit: of.memory_limit,
        memory_swap: of.memory_swap,
        memory_reservation: of.memory_reservation,
        cpu_shares: of.cpu_shares,
        cpu_quota: of.cpu_quota,
        cpu_period: of.cpu_period,
        cpuset_cpus: of.cpuset_cpus,
        cpuset_mems: of.cpuset_mems,
        pids_limit: of.pids_limit,
        blkio_weight: of.blkio_weight,
    }
}

pub fn container(view: ContainerView) -> v1::Container {
    let (restart, restart_max) = restart(view.restart);
    v1::Container {
        namespace: view.key.namespace.to_string(),
        id: view.key.id.to_string(),
        incarnation: view.incarnation.to_string(),
        bundle: view.bundle.to_string_lossy().into_owned(),
        runtime: view.runtime,
        labels: view.labels.into_iter().collect(),
        state: state(view.state).into(),
        pid: view.pid,
        created_at: view.created_at,
        started_at: view.started_at,
        exit: view.exit.map(exit),
        execs: view.execs.into_iter().map(exec).collect(),
        stdio: Some(super::stdio::stdio(view.stdio)),
        stop_signal: view.stop_signal.to_string(),
        restart: restart.into(),
        restart_max,
        restart_count: view.restart_count,
        restart_at: view.restart_at,
        remove: view.remove,
        limits: view.limits.map(limits),
        stop_timeout_ms: u32::try_from(view.stop_timeout.as_millis()).unwrap_or(u32::MAX),
        shim_pid: view.shim_pid,
        processes: view.processes.into_iter().map(process).collect(),
        cgroup: view.cgroup,
        log_path: view
            .log_path
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default(),
        log_dropped_bytes: view.log_dropped_bytes,
        oom_kills: view.oom_kills,
        stages: view.stages.into_iter().map(stage).collect(),
    }
}

fn kind(kind: EventKind) -> v1::EventKind {
    match kind {
        EventKind::Created => v1::EventKind::Created,
        EventKind::Started => v1::EventKind::Started,
        EventKind::Exited => v1::EventKind::Exited,
        EventKind::Oom => v1::EventKind::Oom,
        EventKind::ExecStarted => v1::EventKind::ExecStarted,
        EventKind::ExecExited => v1::EventKind::ExecExited,
        EventKind::Paused => v1::EventKind::Paused,
        EventKind::Resumed => v1::EventKind::Resumed,
        EventKind::Updated => v1::EventKind::Updated,
        EventKind::Deleted => v1::EventKind::Deleted,
        EventKind::StartFailed => v1::EventKind::StartFailed,
    }
}

pub fn event(item: EventItem) -> v1::EventsResponse {
    use v1::events_response::Item;
    let item = match item {
        EventItem::Lagged(cursor) => Item::LaggedCursor(cursor.to_string()),
        EventItem::CaughtUp(cursor) => Item::CaughtUpCursor(cursor.to_string()),
        EventItem::Event(event) => Item::Event(v1::Event {
            cursor: event.cursor.to_string(),
            number: event.cursor.number,
            at: event.what.at,
            kind: kind(event.what.kind).into(),
            namespace: event.what.key.namespace.to_string(),
            id: event.what.key.id.to_string(),
            incarnation: event.what.incarnation.to_string(),
            exec_id: event.what.exec_id.map(|id| id.to_string()).unwrap_or_default(),
            pid: event.what.pid,
            exit: event.what.exit.map(exit),
            stages: event.what.stages.into_iter().map(stage).collect(),
            message: event.what.message,
        }),
    };
    v1::EventsResponse { item: Some(item) }
}

fn stream(stream: Stream) -> v1::Stream {
    match stream {
        Stream::Stdout => v1::Stream::Stdout,
        Stream::Stderr => v1::Stream::Stderr,
    }
}

pub fn logs(entries: Vec<LogEntry>) -> v1::LogsResponse {
    let entry = |entry: LogEntry| v1::LogEntry {
        time: entry.time,
        stream: stream(entry.stream).into(),
        data: entry.data.into(),
        cursor: entry.cursor,
        gap: entry.gap,
    };
    v1::LogsResponse {
        entries: entries.into_iter().map(entry).collect(),
    }
}

pub fn attach_opened(opened: AttachOpened) -> v1::AttachResponse {
    let opened = v1::AttachOpened {
        offset: opened.offset,
        terminal: opened.terminal,
    };
    v1::AttachResponse {
        event: Some(v1::attach_response::Event::Opened(opened)),
    }
}

pub fn attach(output: AttachOutput) -> v1::AttachResponse {
    use v1::attach_response::Event;
    let event = match output {
        AttachOutput::Chunk {
            stream: from,
            data,
            offset,
        } => Event::Output(v1::OutputChunk {
            stream: stream(from).into(),
            data: data.into(),
            offset,
        }),
        AttachOutput::Lost(bytes) => Event::LostBytes(bytes),
        AttachOutput::Exit(status) => Event::Exit(exit(status)),
    };
    v1::AttachResponse { event: Some(event) }
}

pub fn stats(sample: StatsSample) -> v1::StatsResponse {
    v1::StatsResponse {
        at: sample.at,
        containers: sample.containers.into_iter().map(container_stats).collect(),
    }
}

fn container_stats(stats: ContainerStats) -> v1::ContainerStats {
    let usage = stats.usage;
    let networks = usage.networks.into_iter().map(|n| v1::NetworkStats {
        interface: n.interface,
        rx_bytes: n.rx_bytes,
        rx_packets: n.rx_packets,
        rx_errors: n.rx_errors,
        rx_dropped: n.rx_dropped,
        tx_bytes: n.tx_bytes,
        tx_packets: n.tx_packets,
        tx_errors: n.tx_errors,
        tx_dropped: n.tx_dropped,
    });
    v1::ContainerStats {
        namespace: stats.key.namespace.to_string(),
        id: stats.key.id.to_string(),
        cpu_ns: usage.cpu_ns,
        cpu_user_ns: usage.cpu_user_ns,
        cpu_system_ns: usage.cpu_system_ns,
        cpu_throttled_ns: usage.cpu_throttled_ns,
        cpu_periods: usage.cpu_periods,
        cpu_throttled_periods: usage.cpu_throttled_periods,
        memory_bytes: usage.memory_bytes,
        memory_working_set_bytes: usage.memory_working_set_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        memory_peak_bytes: usage.memory_peak_bytes,
        swap_bytes: usage.swap_bytes,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
        io_reads: usage.io_reads,
        io_writes: usage.io_writes,
        oom_kills: usage.oom_kills,
        networks: networks.collect(),
    }
}

pub fn runtime(runtime: RuntimeInfo) -> v1::RuntimeInfo {
    v1::RuntimeInfo {
        name: runtime.name,
        path: runtime.path.to_string_lossy().into_owned(),
        version: runtime.version,
        default: runtime.default,
    }
}
