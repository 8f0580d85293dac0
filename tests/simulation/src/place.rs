//! The supervisor's surroundings as values: folders, wall clock, disks, and a journal that may be full.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use berth_core::ContainerKey;
use berth_record::Limits;
use berth_supervisor::events::{Bus, Journal};
use berth_supervisor::{Clock, Config, Deps, Disks, RunSpec, Supervisor};

use crate::machine::Machine;
use crate::serve::Simulated;

pub const BOOT: &str = "simulated";

/// Folders of one run, removed with it.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // In memory where that is offered: no disk is simulated here.
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("berth-simulation-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("bundle"))?;
        fs::create_dir_all(path.join("state/events"))?;
        fs::write(path.join("bundle/config.json"), "{}")?;
        Ok(Self(path))
    }

    pub fn spec(&self, key: ContainerKey) -> RunSpec {
        RunSpec {
            stdio: berth_core::Stdio::null(),
            ..RunSpec::new(key, self.0.join("bundle"))
        }
    }

    pub fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("state/c")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.0.join("state"), self.0.join("root"), "/nonexistent");
        config.start.concurrency = 1;
        config.start.queue_limit = 1;
        config.shim.adopt_timeout = Duration::from_secs(2);
        config.runtime.default = "any".into();
        // Never called: the shims are simulated.
        let path = "/nonexistent".into();
        let runtime = berth_supervisor::Runtime {
            path,
            ..Default::default()
        };
        config.runtime.runtimes.insert("any".into(), runtime);
        config
    }

    pub async fn daemon(&self, machine: &Arc<Mutex<Machine>>, generation: u64) -> Result<Supervisor, String> {
        let config = self.config();
        let limits = Limits {
            events: 10_000,
            bytes: 1 << 20,
        };
        let opened = berth_record::Journal::open(&config.state.join("events"), limits);
        let (journal, opened) = opened.map_err(|e| format!("the journal: {e}"))?;
        if opened.lost && generation > 1 {
            return Err("the journal counts as damaged".into());
        }
        let deps = Deps {
            clock: Arc::new(Wall {
                machine: machine.clone(),
                generation,
            }),
            shims: Arc::new(Simulated(machine.clone())),
            disks: Arc::new(Whole),
            bus: Bus::new(Fillable {
                journal,
                machine: machine.clone(),
            }),
            boot_id: BOOT.into(),
        };
        let opened = Supervisor::open_with(config, deps).await;
        opened.map_err(|e| format!("the daemon does not start: {e}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Wall {
    machine: Arc<Mutex<Machine>>,
    generation: u64,
}

impl Clock for Wall {
    fn now(&self) -> i64 {
        crate::machine::lock(&self.machine).wall()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

struct Whole;

impl Disks for Whole {
    fn reach(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct Fillable {
    journal: berth_record::Journal,
    machine: Arc<Mutex<Machine>>,
}

impl Journal for Fillable {
    fn epoch(&self) -> u64 {
        Journal::epoch(&self.journal)
    }

    fn first(&self) -> u64 {
        Journal::first(&self.journal)
    }

    fn next(&self) -> u64 {
        Journal::next(&self.journal)
    }

    fn append(&mut self, record: &[u8]) -> io::Result<u64> {
        if crate::machine::lock(&self.machine).journal_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Journal::append(&mut self.journal, record)
    }

    fn read(&mut self, from: u64, max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        Journal::read(&mut self.journal, from, max)
    }
}
