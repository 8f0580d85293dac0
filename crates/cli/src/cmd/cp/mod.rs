//! `berth cp`: files and folders between here and a container, as a tar stream.
//!
//! The container's half is a process of ours of its own ([`inside`]) that has joined the container's mount namespace and has its root
//! for its root, so that no link, however it is changed meanwhile, leads out; the half here takes what comes as if the container had
//! made it up: below the destination nothing goes through a symbolic link.

pub mod inside;
mod pack;
mod unpack;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_client::Client;
use berth_wire::v1::{Container, GetRequest};
use clap::Args;

use self::pack::Source;
use self::unpack::Target;
use super::Context;
use crate::error::{CliError, Result};

#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep the numbers of users and groups
    #[arg(long, short)]
    pub archive: bool,
    /// Copy what a symbolic link points to, if SOURCE is one
    #[arg(long, short = 'L')]
    pub follow_link: bool,
    /// For hands that know docker: nothing is said in any case
    #[arg(long, short, hide = true)]
    pub quiet: bool,
    /// ID:PATH, a path here, or - for a tar stream from stdin; a folder's contents with /. behind it
    #[arg(value_name = "SOURCE")]
    pub from: OsString,
    /// ID:PATH, a path here, or - for a tar stream to stdout
    #[arg(value_name = "DEST")]
    pub to: OsString,
}

#[derive(Debug, PartialEq, Eq)]
enum Side {
    Stream,
    Here(PathBuf),
    There { id: String, path: PathBuf },
}

impl Side {
    /// As docker reads it: a colon makes it a container's, if the text does not begin as a path.
    fn parse(text: &OsString) -> Self {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Self::Stream;
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        match (bytes.first(), colon) {
            (Some(b'/' | b'.'), _) | (_, None | Some(0)) => Self::Here(text.into()),
            (_, Some(colon)) => {
                let path = OsString::from_vec([b"/", &bytes[colon + 1..]].concat());
                Self::There {
                    id: String::from_utf8_lossy(&bytes[..colon]).into_owned(),
                    path: path.into(),
                }
            }
        }
    }
}

pub async fn cp(context: &Context, args: CpArgs) -> Result<u8> {
    let usage = |text: &str| Err(CliError::Usage(text.into()));
    match (Side::parse(&args.from), Side::parse(&args.to)) {
        (Side::There { id, path }, to @ (Side::Here(_) | Side::Stream)) => {
            if to == Side::Stream && io::stdout().is_terminal() {
                return usage("a tar stream is nothing for a terminal: write it to a file or a pipe");
            }
            let place = Place::find(&context.client().await?, &id).await?;
            blocking(move || copy_out(&place, &path, to, args.follow_link, args.archive)).await
        }
        (from @ (Side::Here(_) | Side::Stream), Side::There { id, path }) => {
            let place = Place::find(&context.client().await?, &id).await?;
            blocking(move || copy_in(&place, from, &path, args.follow_link, args.archive)).await
        }
        (Side::There { .. }, Side::There { .. }) => {
            usage("between two containers: berth cp ONE:PATH - | berth cp - OTHER:FOLDER")
        }
        (Side::Here(_) | Side::Stream, Side::Here(_) | Side::Stream) => {
            usage("one of the two must be in a container: ID:PATH")
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<u8> + Send + 'static) -> Result<u8> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Where a container's files are: held open, so that they stay its own whatever becomes of its number.
struct Place {
    root: File,
    /// Its mount namespace, and its user namespace if that is not ours; of one that has ended there is but the root file system.
    mount: Option<File>,
    user: Option<File>,
}

impl Place {
    async fn find(client: &Client, id: &str) -> Result<Self> {
        let get = async || {
            let request = GetRequest {
                namespace: client.namespace.clone(),
                id: id.to_owned(),
                processes: false,
            };
            let answer = client
                .call(
                    "cp",
                    id,
                    request,
                    |mut stub, request| async move { stub.get(request).await },
                )
                .await?;
            Ok::<_, CliError>(answer.container.unwrap_or_default())
        };
        let container = get().await?;
        if container.pid == 0 {
            return Ok(Self {
                root: open(&rootfs(&container)?)?,
                mount: None,
                user: None,
            });
        }
        let of = |name: &str| open(Path::new(&format!("/proc/{}/{name}", container.pid)));
        let (root, mount, user) = (of("root")?, of("ns/mnt")?, of("ns/user")?);
        let now = get().await?;
        if (now.pid, &now.incarnation) != (container.pid, &container.incarnation) {
            return Err(CliError::Copy(format!(
                "cp {id}: the container has just ended; try again"
            )));
        }
        let ours = open(Path::new("/proc/self/ns/user"))?;
        let same = is_same(&user, &ours).map_err(|error| CliError::Copy(format!("cp {id}: {error}")))?;
        Ok(Self {
            root,
            mount: Some(mount),
            user: Some(user).filter(|_| !same),
        })
    }

    /// The process that works inside. It opens what we hold by way of our own descriptors.
    fn process(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("cp-inside");
        let mut give = |option: &str, file: &File| {
            command.arg(option);
            command.arg(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        };
        give("--root", &self.root);
        if let Some(mount) = &self.mount {
            give("--mount", mount);
        }
        if let Some(user) = &self.user {
            give("--user", user);
        }
        command.env_clear();
        command
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| CliError::File {
        operation: "open",
        path: path.to_owned(),
        source,
    })
}

fn rootfs(container: &Container) -> Result<PathBuf> {
    let config = Path::new(&container.bundle).join("config.json");
    let text = std::fs::read(&config).map_err(|source| CliError::File {
        operation: "read",
        path: config.clone(),
        source,
    })?;
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    Ok(Path::new(&container.bundle).join(config["root"]["path"].as_str().unwrap_or("rootfs")))
}

fn copy_out(place: &Place, path: &Path, to: Side, follow: bool, archive: bool) -> Result<u8> {
    let mut command = place.process();
    command.arg("pack").stdin(Stdio::null());
    if follow {
        command.arg("--follow-link");
    }
    let Side::Here(to) = to else {
        return ended(command.arg("--named").arg("--").arg(path).spawn(), Ok(()));
    };
    let mut child = command
        .arg("--")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(no_helper)?;
    let done = match child.stdout.take() {
        Some(stream) => unpack::outside(stream, &Target::new(&to, path), archive),
        None => Ok(()),
    };
    ended(Ok(child), done)
}

fn copy_in(place: &Place, from: Side, path: &Path, follow: bool, archive: bool) -> Result<u8> {
    let mut command = place.process();
    command.arg("unpack");
    if archive {
        command.arg("--archive");
    }
    let Side::Here(from) = from else {
        return ended(command.arg("--").arg(path).spawn(), Ok(()));
    };
    let target = Target::new(path, &from);
    if let Some(name) = &target.name {
        // One argument: the name may begin as an option does.
        let mut option = OsString::from("--name=");
        option.push(name);
        command.arg(option);
    }
    command.arg("--copied").arg("--").arg(path).stdin(Stdio::piped());
    // What is wrong here is said before anything is done there.
    let source = Source::outside(&from, follow).map_err(|source| CliError::File {
        operation: "copy",
        path: from.clone(),
        source,
    })?;
    let mut child = command.spawn().map_err(no_helper)?;
    let done = match child.stdin.take() {
        Some(stream) => pack::pack(&source, Path::new(pack::TOP), stream),
        None => Ok(()),
    };
    ended(Ok(child), done)
}

fn no_helper(source: io::Error) -> CliError {
    CliError::File {
        operation: "run",
        path: "/proc/self/exe".into(),
        source,
    }
}

/// The half inside has said itself what went wrong there.
fn ended(child: io::Result<Child>, done: io::Result<()>) -> Result<u8> {
    let mut child = child.map_err(no_helper)?;
    if done.is_err() {
        // What it waits for will not come: our end of its pipe is closed.
        drop((child.stdin.take(), child.stdout.take()));
    }
    let status = child.wait().map_err(no_helper)?;
    match done {
        _ if !status.success() => Ok(1),
        Ok(()) => Ok(0),
        Err(error) => Err(CliError::Copy(format!("cp: {error}"))),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn sides_are_told_apart_as_docker_does() {
        let parse = |text: &str| Side::parse(&text.into());
        let there = |id: &str, path: &str| Side::There {
            id: id.into(),
            path: path.into(),
        };
        assert_eq!(parse("-"), Side::Stream);
        assert_eq!(parse("web:/etc"), there("web", "//etc"));
        assert_eq!(parse("web:etc/x:y"), there("web", "/etc/x:y"));
        for here in ["a", "./a:b", "/a:b", "../x", ":x", ""] {
            assert_eq!(parse(here), Side::Here(here.into()), "{here}");
        }
    }
}
