//! Where a simulated daemon is: its folders, its clock, and disks that hang when a test says so.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::{fs, io};

use crate::fake::{BOOT, FakeShims, World};
use berth_core::ContainerKey;
use berth_record::{Journal, Limits};
use berth_supervisor::events::Bus;
use berth_supervisor::{Clock, Config, Deps, Disks, RunSpec, Supervisor};

/// Disks that hang below some folders.
#[derive(Default)]
pub struct FakeDisks {
    hung: Mutex<Hung>,
    changed: Condvar,
}

#[derive(Default)]
struct Hung {
    below: Vec<PathBuf>,
    /// Who waits for them.
    threads: usize,
}

impl FakeDisks {
    pub fn hang(&self, below: impl Into<PathBuf>) {
        self.hung.lock().unwrap().below.push(below.into());
    }

    pub fn recover(&self) {
        // None of the threads hangs from here on, whenever each of them wakes up.
        *self.hung.lock().unwrap() = Hung::default();
        self.changed.notify_all();
    }

    /// Threads that hang.
    pub fn hung(&self) -> usize {
        self.hung.lock().unwrap().threads
    }
}

impl Disks for FakeDisks {
    fn reach(&self, path: &std::path::Path) -> io::Result<()> {
        let hangs = |hung: &mut Hung| hung.below.iter().any(|below| path.starts_with(below));
        let mut hung = self.hung.lock().unwrap();
        if hangs(&mut hung) {
            hung.threads += 1;
            drop(self.changed.wait_while(hung, hangs));
        }
        Ok(())
    }
}

struct FakeClock {
    generation: u64,
    world: Arc<World>,
}

impl Clock for FakeClock {
    fn now(&self) -> i64 {
        assert!(
            !self.world.defect.swap(false, std::sync::atomic::Ordering::Relaxed),
            "a defect, as the test asked for"
        );
        1_000_000_000
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

/// Folders of one test; removed with it.
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-supervisor-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("bundle")).unwrap();
        fs::write(path.join("bundle/config.json"), "{}").unwrap();
        Self(path)
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(self.0.join("state"), self.0.join("root"), "/nonexistent");
        // Never called: the shims are fakes.
        config.runtime.default = "any".into();
        let runtime = berth_supervisor::Runtime {
            path: "/nonexistent".into(),
            ..Default::default()
        };
        config.runtime.runtimes.insert("any".into(), runtime);
        config
    }

    pub async fn daemon(&self, world: &Arc<World>, config: Config) -> Supervisor {
        let journal = self.journal(&config);
        self.daemon_with(world, config, Bus::new(journal)).await
    }

    pub fn journal(&self, config: &Config) -> Journal {
        let events = config.state.join("events");
        fs::create_dir_all(&events).unwrap();
        let (journal, _) = Journal::open(
            &events,
            Limits {
                events: 1000,
                bytes: 1 << 20,
            },
        )
        .unwrap();
        journal
    }

    pub async fn daemon_with(&self, world: &Arc<World>, config: Config, bus: Bus) -> Supervisor {
        let generation = world.generation.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let deps = Deps {
            clock: Arc::new(FakeClock {
                generation,
                world: world.clone(),
            }),
            shims: Arc::new(FakeShims(world.clone())),
            disks: world.disks.clone(),
            bus,
            boot_id: BOOT.into(),
        };
        Supervisor::open_with(config, deps).await.unwrap()
    }

    pub fn spec(&self, namespace: &str, id: &str) -> RunSpec {
        let key = ContainerKey::parse(namespace, id).unwrap();
        RunSpec {
            stdio: berth_core::Stdio::null(),
            ..RunSpec::new(key, self.0.join("bundle"))
        }
    }

    /// Names in the containers' folder.
    pub fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("state/c")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
