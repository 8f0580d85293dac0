//! Prometheus metrics, few and fixed: no series is named by a container, so their number never grows.
//!
//! The listener answers any GET with the same page, one request a connection; it has a bound on bytes and time.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use berth_supervisor::{BUCKETS_US, Histogram, Metrics, Supervisor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::config::MetricsAddress;
use crate::error::Error;
use crate::listen::{self, Listening};

/// Head of a request that a scraper sends.
const MAX_REQUEST: usize = 8 << 10;
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Rest after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub struct Serving {
    task: Option<JoinHandle<()>>,
    socket: Option<std::path::PathBuf>,
}

impl Serving {
    pub fn end(self) {
        if let Some(task) = self.task {
            task.abort();
        }
        if let Some(socket) = self.socket {
            listen::remove(&socket, true);
        }
    }
}

pub async fn start(address: Option<&MetricsAddress>, supervisor: Supervisor) -> Result<Serving, Error> {
    let (listener, socket) = match address {
        None => {
            return Ok(Serving {
                task: None,
                socket: None,
            });
        }
        Some(MetricsAddress::Unix(path)) => (Listener::Unix(Listening::bind(path)?.listener), Some(path.clone())),
        Some(MetricsAddress::Loopback(address)) => {
            let listener = TcpListener::bind(address).await.map_err(|source| Error::Io {
                operation: "listen on",
                what: format!("{address} (daemon.metrics_address)"),
                source,
            })?;
            (Listener::Tcp(listener), None)
        }
    };
    Ok(Serving {
        task: Some(tokio::spawn(serve(listener, supervisor))),
        socket,
    })
}

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Listener::Unix(listener) => Box::new(listener.accept().await?.0),
            Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

async fn serve(listener: Listener, supervisor: Supervisor) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let supervisor = supervisor.clone();
                tokio::spawn(async move {
                    // A scraper that is slow or gone tries again.
                    let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, &supervisor)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a scraper can't be accepted; trying again");
                // A descriptor that gets free tells nobody.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, supervisor: &Supervisor) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > MAX_REQUEST || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match head.split(|b| *b == b' ').collect::<Vec<_>>()[..] {
        [b"GET", b"/metrics" | b"/", ..] => ("200 OK", render(&supervisor.metrics())),
        [b"GET", ..] => ("404 Not Found", "try /metrics\n".into()),
        _ => ("405 Method Not Allowed", "only GET\n".into()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Prometheus's text format.
fn render(metrics: &Metrics) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    let build = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    page.family("berth_build_info", "gauge", "The daemon's version.", &[(build, 1.0)]);
    let results = [
        ("ok", metrics.starts_ok),
        ("failed", metrics.starts_failed),
        ("cancelled", metrics.starts_cancelled),
    ];
    let results = results.map(|(result, n)| (format!("{{result=\"{result}\"}}"), n as f64));
    page.family(
        "berth_starts_total",
        "counter",
        "Starts that have ended, by how.",
        &results,
    );
    page.histograms(
        "berth_start_stage_seconds",
        "How long the stages of a start took; total is all of it.",
        &metrics.stages,
    );
    page.single(
        "berth_start_queue_length",
        "gauge",
        "Starts that wait for a permit.",
        metrics.queue_length as f64,
    );
    page.single(
        "berth_starts_at_work",
        "gauge",
        "Starts that have a permit.",
        metrics.starts_at_work as f64,
    );
    let exits: Vec<_> = metrics
        .exits
        .iter()
        .map(|(reason, n)| (format!("{{reason=\"{reason}\"}}"), *n as f64))
        .collect();
    page.family(
        "berth_exits_total",
        "counter",
        "Containers that have ended, by reason.",
        &exits,
    );
    page.single(
        "berth_containers",
        "gauge",
        "Containers that the daemon knows.",
        metrics.containers as f64,
    );
    page.single(
        "berth_oldest_call_seconds",
        "gauge",
        "Age of the oldest call that is being served.",
        metrics.oldest_call.as_secs_f64(),
    );
    page.single(
        "berth_event_lag",
        "gauge",
        "Events between the newest one and the slowest reader.",
        metrics.event_lag as f64,
    );
    page.single(
        "berth_events_total",
        "counter",
        "Events that have happened.",
        metrics.events_total as f64,
    );
    page.0
}

struct Page(String);

impl Page {
    // Writing to a string can't fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, series: &[(String, f64)]) {
        self.head(name, kind, help);
        for (labels, value) in series {
            self.line(format_args!("{name}{labels} {value}"));
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, &[(String::new(), value)]);
    }

    fn histograms(&mut self, name: &str, help: &str, stages: &[(&'static str, Histogram)]) {
        self.head(name, "histogram", help);
        for (stage, histogram) in stages {
            let mut below = 0;
            for (bound, count) in BUCKETS_US.iter().zip(histogram.counts) {
                below += count;
                let le = *bound as f64 / 1e6;
                self.line(format_args!("{name}_bucket{{stage=\"{stage}\",le=\"{le}\"}} {below}"));
            }
            let all = histogram.count();
            self.line(format_args!("{name}_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {all}"));
            self.line(format_args!(
                "{name}_sum{{stage=\"{stage}\"}} {}",
                histogram.sum.as_secs_f64()
            ));
            self.line(format_args!("{name}_count{{stage=\"{stage}\"}} {all}"));
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_page() {
        let mut total = Histogram::default();
        total.observe(Duration::from_micros(400));
        total.observe(Duration::from_millis(30));
        total.observe(Duration::from_secs(100));
        let metrics = Metrics {
            starts_ok: 3,
            stages: vec![("total", total)],
            exits: vec![("exited", 2)],
            queue_length: 7,
            oldest_call: Duration::from_millis(1500),
            ..Metrics::default()
        };
        let page = render(&metrics);
        for line in [
            "# TYPE berth_starts_total counter",
            "berth_starts_total{result=\"ok\"} 3",
            "berth_start_stage_seconds_bucket{stage=\"total\",le=\"0.0005\"} 1",
            "berth_start_stage_seconds_bucket{stage=\"total\",le=\"0.05\"} 2",
            "berth_start_stage_seconds_bucket{stage=\"total\",le=\"60\"} 2",
            "berth_start_stage_seconds_bucket{stage=\"total\",le=\"+Inf\"} 3",
            "berth_start_stage_seconds_count{stage=\"total\"} 3",
            "berth_exits_total{reason=\"exited\"} 2",
            "berth_start_queue_length 7",
            "berth_oldest_call_seconds 1.5",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        let named = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        for line in page.lines().filter(|l| !l.starts_with('#')) {
            assert!(named(line).starts_with("berth_"), "{line}");
            assert!(
                line.rsplit(' ').next().is_some_and(|v| v.parse::<f64>().is_ok()),
                "{line}"
            );
        }
    }
}
