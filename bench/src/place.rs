//! Where one side runs: a mount namespace of its own, with the peers' root filesystem or the host's, held open by one sleeping
//! process. Whatever is in that namespace and is not the daemon is a supervising process: a shim, a template, a writer.

use crate::cgroup::Cgroup;
use crate::error::{BenchError, Context, Result};
use crate::until::until;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ENTER: &str = include_str!("../../scripts/peers/enter");

pub struct Place {
    holder: Child,
    /// What /proc/PID/ns/mnt says of those inside.
    namespace: PathBuf,
}

impl Place {
    /// A namespace with the peers' root, or with the host's. `binds` appear at the same path inside.
    pub async fn make(peers: Option<&Path>, binds: &[&Path]) -> Result<Place> {
        let mut command = match peers {
            Some(peers) => {
                let mut enter = Command::new("sh");
                let binds = binds
                    .iter()
                    .map(|bind| bind.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join(" ");
                enter.args(["-c", ENTER, "sh"]).env("PEERS", peers).env("BIND", binds);
                enter
            }
            None => {
                let mut unshare = Command::new("unshare");
                unshare.args(["-m", "--propagation", "private"]);
                unshare
            }
        };
        let holder = command
            .args(["sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("unshare")?;
        let pid = holder.id();
        let mut place = Place {
            holder,
            namespace: PathBuf::new(),
        };
        let comm = PathBuf::from(format!("/proc/{pid}/comm"));
        until("a mount namespace", Duration::from_secs(20), async || {
            let text = std::fs::read_to_string(&comm).ok()?;
            (text.trim() == "sleep").then_some(())
        })
        .await?;
        place.namespace = std::fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
        Ok(place)
    }

    /// A command inside, whose own CPU time and its children's count for the cgroup. Its pid is the child's.
    pub fn command(&self, cgroup: &Cgroup, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
            .arg(cgroup.join_file());
        command
            .args(["nsenter", "-m", "-t", &self.holder.id().to_string(), "--"])
            .arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// What a file of the namespace says.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let folders = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
        let found = folders
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| root.join(path).exists());
        let found =
            found.ok_or_else(|| BenchError::new(format!("{name} is not installed where it is to be measured")))?;
        Ok(Path::new("/").join(found))
    }

    /// The processes inside, the holder and `not` left out.
    pub fn processes(&self, not: &[u32]) -> Vec<u32> {
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let pids = pids.filter(|pid| *pid != self.holder.id() && !not.contains(pid));
        pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|link| link == self.namespace))
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
