//! `berth top`: containers as they work, full screen. [`Model`] holds what is known and `draw` shows it; the loop only feeds them.
//!
//! Numbers come from the Stats stream, starts per second from the events, the queue from a list with each reading.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use berth_client::{Client, Happened};
use berth_wire::v1::{
    ContainerState, ContainerStats, EventKind, EventsRequest, ListRequest, StatsRequest, StatsResponse,
};
use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table};
use tokio::sync::mpsc;

use super::Context;
use super::stats::Rates;
use crate::error::{CliError, Result};
use crate::human::{parse_duration, size};
use crate::out;

/// Seconds that the curve of starts shows.
const CURVE: usize = 120;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Time between two readings
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

/// What comes from elsewhere.
enum Input {
    Key(KeyEvent),
    Resized,
    Reading(StatsResponse, usize),
    Started,
    Failed(CliError),
}

pub async fn top(context: &Context, args: TopArgs) -> Result<u8> {
    if !io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "top needs a terminal: `berth stats` prints the same to a pipe".into(),
        ));
    }
    let interval_ms = match u32::try_from(args.interval.as_millis()) {
        Ok(milliseconds @ 100..=3_600_000) => milliseconds,
        _ => return Err(CliError::Usage("--interval: expected 100ms to 1h".into())),
    };
    let mut client = context.client().await?;
    if args.all_namespaces {
        client.namespace = "*".into();
    }
    // A word about a daemon that is away would be drawn over.
    let client = client.when_away(|| ());
    let (inputs, mut received) = mpsc::channel(64);
    tokio::spawn(read(client.clone(), interval_ms, inputs.clone()));
    tokio::spawn(count_starts(client, inputs.clone()));
    // Never joined: it ends with the program.
    std::thread::spawn(move || {
        loop {
            let input = match event::read() {
                Ok(event::Event::Key(key)) => Input::Key(key),
                Ok(event::Event::Resize(..)) => Input::Resized,
                Ok(_) => continue,
                Err(error) => Input::Failed(CliError::Stdout(error)),
            };
            if inputs.blocking_send(input).is_err() {
                return;
            }
        }
    });
    let mut terminal = ratatui::try_init().map_err(CliError::stdout)?;
    let mut model = Model::new(out::coloured());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let result = loop {
        if let Err(error) = terminal.draw(|frame| model.draw(frame)) {
            break Err(CliError::stdout(error));
        }
        tokio::select! {
            input = received.recv() => match input {
                Some(Input::Key(key)) if ends(&key) => break Ok(0),
                Some(Input::Key(key)) => model.key(key.code),
                Some(Input::Resized) => {}
                Some(Input::Reading(reading, queued)) => model.reading(&reading, queued),
                Some(Input::Started) => model.started += 1,
                Some(Input::Failed(error)) => break Err(error),
                None => break Ok(0),
            },
            _ = second.tick() => model.tick(),
        }
    };
    ratatui::restore();
    result
}

fn ends(key: &KeyEvent) -> bool {
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

async fn read(client: Client, interval_ms: u32, inputs: mpsc::Sender<Input>) {
    let request = StatsRequest {
        namespace: client.namespace.clone(),
        interval_ms,
        ..Default::default()
    };
    let (readings, mut taken) = mpsc::channel(4);
    let stream = client.stream(
        "top",
        "",
        request,
        |mut stub, request| async move { stub.stats(request).await },
        |_, reading| {
            // A screen that is slow skips a reading.
            let _ = readings.try_send(reading);
            Ok(std::ops::ControlFlow::Continue(()))
        },
    );
    let pass = async {
        while let Some(reading) = taken.recv().await {
            let queued = match client.list(ListRequest::default()).await {
                Ok(list) => list.iter().filter(|c| c.state() == ContainerState::Queued).count(),
                Err(_) => 0,
            };
            if inputs.send(Input::Reading(reading, queued)).await.is_err() {
                return;
            }
        }
    };
    let ended: Result<(), CliError> = tokio::select! {
        ended = stream => ended,
        () = pass => return,
    };
    let error = ended
        .err()
        .unwrap_or_else(|| CliError::Usage("berthd ended the readings".into()));
    let _ = inputs.send(Input::Failed(error)).await;
}

async fn count_starts(client: Client, inputs: mpsc::Sender<Input>) {
    let mut events = client.events(EventsRequest {
        kinds: vec![EventKind::Started.into()],
        ..Default::default()
    });
    while let Ok(Some(happened)) = events.next().await {
        if matches!(happened, Happened::Event(_)) && inputs.send(Input::Started).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Cpu,
    Memory,
    Io,
    Id,
}

struct Entry {
    stats: ContainerStats,
    cpu: Option<f64>,
    /// Bytes read and written a second.
    io: f64,
}

struct Model {
    rates: Rates,
    rows: Vec<Entry>,
    io_before: HashMap<(String, String), u64>,
    read_at: i64,
    queued: usize,
    /// Of this second, and of those before.
    started: u64,
    starts: VecDeque<u64>,
    order: Order,
    skipped: usize,
    coloured: bool,
}

impl Model {
    fn new(coloured: bool) -> Self {
        Model {
            rates: Rates::default(),
            rows: Vec::new(),
            io_before: HashMap::new(),
            read_at: 0,
            queued: 0,
            started: 0,
            starts: VecDeque::new(),
            order: Order::Cpu,
            skipped: 0,
            coloured,
        }
    }

    /// A second is over.
    fn tick(&mut self) {
        self.starts.push_front(std::mem::take(&mut self.started));
        self.starts.truncate(CURVE);
    }

    fn reading(&mut self, reading: &StatsResponse, queued: usize) {
        let percents = self.rates.take(reading);
        let seconds = (reading.at - self.read_at) as f64 / 1e9;
        self.read_at = reading.at;
        let mut now = HashMap::new();
        self.rows = reading
            .containers
            .iter()
            .zip(percents)
            .map(|(stats, cpu)| {
                let key = (stats.namespace.clone(), stats.id.clone());
                let bytes = stats.io_read_bytes + stats.io_write_bytes;
                let io = match self.io_before.get(&key) {
                    Some(before) if seconds > 0.0 => bytes.saturating_sub(*before) as f64 / seconds,
                    _ => 0.0,
                };
                now.insert(key, bytes);
                Entry {
                    stats: stats.clone(),
                    cpu,
                    io,
                }
            })
            .collect();
        self.io_before = now;
        self.queued = queued;
        self.sort();
    }

    fn sort(&mut self) {
        let by = |a: f64, b: f64| b.total_cmp(&a);
        // By name where equal, so that lines stay where they are.
        self.rows.sort_by(|a, b| a.stats.id.cmp(&b.stats.id));
        match self.order {
            Order::Cpu => self.rows.sort_by(|a, b| by(a.cpu.unwrap_or(0.0), b.cpu.unwrap_or(0.0))),
            Order::Memory => self
                .rows
                .sort_by_key(|row| std::cmp::Reverse(row.stats.memory_working_set_bytes)),
            Order::Io => self.rows.sort_by(|a, b| by(a.io, b.io)),
            Order::Id => {}
        }
    }

    fn key(&mut self, key: KeyCode) {
        let order = match key {
            KeyCode::Char('c') => Order::Cpu,
            KeyCode::Char('m') => Order::Memory,
            KeyCode::Char('i') => Order::Io,
            KeyCode::Char('n') => Order::Id,
            KeyCode::Down => return self.skipped = (self.skipped + 1).min(self.rows.len().saturating_sub(1)),
            KeyCode::Up => return self.skipped = self.skipped.saturating_sub(1),
            KeyCode::Home => return self.skipped = 0,
            _ => return,
        };
        self.order = order;
        self.skipped = 0;
        self.sort();
    }

    fn style(&self, color: Color) -> Style {
        if self.coloured {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [head, curve, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(3),
            Constraint::Min(2),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        // Not `sum`: that of nothing is -0.
        let sum = |all: &mut dyn Iterator<Item = f64>| all.fold(0.0, |sum, one| sum + one);
        let cpu = sum(&mut self.rows.iter().filter_map(|row| row.cpu));
        let memory: u64 = self.rows.iter().map(|row| row.stats.memory_working_set_bytes).sum();
        let io = sum(&mut self.rows.iter().map(|row| row.io));
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let starts = self.starts.front().copied().unwrap_or(0);
        let words = [
            (self.rows.len().to_string(), " containers   "),
            (self.queued.to_string(), " queued   "),
            (starts.to_string(), " starts/s   "),
            (format!("{cpu:.0}%"), " cpu   "),
            (size(memory), " memory   "),
            (format!("{}/s", size(io as u64)), " disk"),
        ];
        let spans = words
            .into_iter()
            .flat_map(|(number, name)| [Span::styled(number, bold), Span::raw(name)]);
        frame.render_widget(Paragraph::new(Line::from_iter(spans)), head);
        let data: Vec<u64> = self.starts.iter().copied().collect();
        frame.render_widget(Sparkline::default().data(&data).style(self.style(Color::Cyan)), curve);
        let header = Row::new(["ID", "CPU", "MEMORY", "LIMIT", "DISK/S", "PIDS"]).style(bold);
        let rows = self.rows.iter().skip(self.skipped).map(|row| self.row(row));
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(6),
        ];
        frame.render_widget(Table::new(rows, widths).header(header), body);
        let help = format!(
            "q quit   sort: c cpu, m memory, i disk, n name (now {:?})   ↑ ↓ scroll",
            self.order
        );
        frame.render_widget(
            Paragraph::new(help.to_lowercase()).style(self.style(Color::DarkGray)),
            foot,
        );
    }

    fn row(&self, row: &Entry) -> Row<'_> {
        let stats = &row.stats;
        let limit = match stats.memory_limit_bytes {
            0 => "-".to_owned(),
            limit => size(limit),
        };
        let near = stats.memory_limit_bytes > 0 && stats.memory_working_set_bytes > stats.memory_limit_bytes / 10 * 9;
        let busy = row.cpu.is_some_and(|percent| percent >= 80.0);
        let warned = |warned: bool| {
            if warned {
                self.style(Color::Yellow)
            } else {
                Style::new()
            }
        };
        Row::new([
            Cell::new(stats.id.clone()),
            Cell::new(row.cpu.map_or_else(|| "-".into(), |percent| format!("{percent:.1}%"))).style(warned(busy)),
            Cell::new(size(stats.memory_working_set_bytes)).style(warned(near)),
            Cell::new(limit),
            Cell::new(size(row.io as u64)),
            Cell::new(stats.pids.to_string()),
        ])
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn reading(at: i64, of: &[(&str, u64, u64)]) -> StatsResponse {
        let containers = of.iter().map(|&(id, cpu_ns, memory)| ContainerStats {
            id: id.into(),
            cpu_ns,
            memory_working_set_bytes: memory,
            io_read_bytes: cpu_ns / 1000,
            pids: 2,
            ..Default::default()
        });
        StatsResponse {
            at,
            containers: containers.collect(),
        }
    }

    fn screen(model: &Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(72, 10)).expect("a terminal");
        terminal.draw(|frame| model.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(72);
        rows.map(|row| {
            row.iter()
                .map(|cell| cell.symbol())
                .collect::<String>()
                .trim_end()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn the_busiest_is_on_top_and_keys_change_that() {
        let mut model = Model::new(false);
        assert!(screen(&model)[0].contains("   0% cpu"), "{:?}", screen(&model)[0]);
        let second = 1_000_000_000;
        model.reading(&reading(second, &[("idle", 0, 9 << 20), ("busy", 0, 1 << 20)]), 0);
        model.reading(
            &reading(2 * second, &[("idle", 0, 9 << 20), ("busy", 500_000_000, 1 << 20)]),
            3,
        );
        model.started = 7;
        model.tick();
        let lines = screen(&model);
        assert!(
            lines[0].starts_with("2 containers   3 queued   7 starts/s   50% cpu   10.0 MiB memory"),
            "{lines:#?}"
        );
        let at = |lines: &[String], id: &str| lines.iter().position(|line| line.starts_with(id)).expect("a row");
        assert!(at(&lines, "busy") < at(&lines, "idle"), "{lines:#?}");
        assert!(lines[at(&lines, "busy")].contains("50.0%"), "{lines:#?}");
        model.key(KeyCode::Char('m'));
        let lines = screen(&model);
        assert!(at(&lines, "idle") < at(&lines, "busy"), "{lines:#?}");
        model.key(KeyCode::Down);
        assert!(!screen(&model).iter().any(|line| line.starts_with("idle")));
    }
}
