//! The runtime alone: `create` and `start` as processes, so many at a time. Runs inside the place of its side and reports each
//! phase as one line of JSON; goes on when it gets a line back, so that the parent can look around.

use crate::error::{BenchError, Result, ensure};
use crate::measure::burst;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    runtime: PathBuf,
    /// The runtime's state
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    bundles: PathBuf,
    #[arg(long)]
    in_flight: usize,
    /// How many to start in each phase: bundles 0, 1, … in order
    #[arg(long)]
    phase: Vec<usize>,
}

pub async fn run(options: Options) -> Result<()> {
    let options = Arc::new(options);
    let mut first = 0;
    for &count in &options.phase {
        let started = burst(count, options.in_flight, |index| {
            let (options, id) = (options.clone(), (first + index).to_string());
            async move {
                let bundle = options.bundles.join(&id);
                options
                    .call(&["create".as_ref(), "--bundle".as_ref(), bundle.as_os_str(), id.as_ref()])
                    .await?;
                options.call(&["start".as_ref(), id.as_ref()]).await
            }
        });
        report(&started.await?)?;
        first += count;
    }
    let removed = burst(first, options.in_flight, |index| {
        let (options, id) = (options.clone(), index.to_string());
        async move {
            options
                .call(&["delete".as_ref(), "--force".as_ref(), id.as_ref()])
                .await
        }
    });
    report(&removed.await?)
}

fn report(burst: &crate::measure::Burst) -> Result<()> {
    println!("{}", serde_json::to_string(burst)?);
    std::io::stdout().flush()?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    ensure(read > 0, || "the parent has gone".to_owned())
}

impl Options {
    async fn call(&self, args: &[&std::ffi::OsStr]) -> Result<()> {
        let mut command = Command::new(&self.runtime);
        command
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // A file, not a pipe: the container inherits it, and a pipe would be read until the container's end.
        let stderr = self.root.with_extension("stderr");
        let status = command
            .stderr(std::fs::File::options().create(true).append(true).open(&stderr)?)
            .status()
            .await?;
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&stderr).unwrap_or_default();
        Err(BenchError::new(format!(
            "{} {:?}: {}",
            self.runtime.display(),
            args,
            text.lines().last().unwrap_or_default()
        )))
    }
}
