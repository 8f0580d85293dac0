//! `cargo xtask dist`: the tarball and the Debian package of the release, in target/dist, from programs that are built already.
//!
//! Both hold the same files at the same places below /usr and /lib/systemd, so that a page of documentation fits either. File times
//! and owners are fixed: the same programs make the same packages. Invariant: a package stops no container, whatever is done with it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the packages are called by; Debian's word for the architecture and the kernel's.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "amd64"), ("aarch64", "arm64")];

/// Where each program goes.
const PROGRAMS: [&str; 4] = ["berthd", "berth-shim", "berth", "berth-oci"];

/// Options of the command line.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    /// The folder of the programs.
    programs: PathBuf,
    /// In place of the workspace's.
    version: String,
}

fn wish(root: &Path, arguments: &[String]) -> Result<Wish, String> {
    let mut wish = Wish {
        programs: PathBuf::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut all = arguments.iter();
    while let Some(argument) = all.next() {
        let value = all.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--programs" => wish.programs = value.into(),
            "--version" => wish.version.clone_from(value),
            other => {
                return Err(format!(
                    "no such option: {other} (there are --programs DIR and --version V)"
                ));
            }
        }
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || ".~+".contains(c);
    if !wish.version.starts_with(|c: char| c.is_ascii_digit()) || !wish.version.chars().all(legal) {
        return Err(format!("{:?} is no version for a package", wish.version));
    }
    if wish.programs.as_os_str().is_empty() {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        wish.programs = target.join(format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH));
    }
    Ok(wish)
}

/// Makes both, and prints where they are.
pub fn run(root: &Path, arguments: &[String]) -> Result<Vec<String>, String> {
    let wish = wish(root, arguments)?;
    let machine = std::env::consts::ARCH;
    let debian = ARCHITECTURES.iter().find(|(name, _)| *name == machine);
    let (_, debian) = debian.ok_or_else(|| format!("no packages are made for {machine}"))?;
    let dist = root.join("target/dist");
    let tree = dist.join("tree");
    remove(&tree)?;
    fill(root, &wish, &tree)?;
    let name = format!("berth-{}-{machine}", wish.version);
    let tarball = dist.join(format!("{name}.tar.gz"));
    // The installed size, before the control files come.
    let size = size(&tree)
        .map_err(|e| format!("{}: {e}", tree.display()))?
        .div_ceil(1024);
    call(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"])
            .arg(format!("--transform=s,^\\.,{name},"))
            .arg("-czf")
            .arg(&tarball)
            .arg("-C")
            .arg(&tree)
            .arg("."),
    )?;
    control(root, &wish, debian, size, &tree.join("DEBIAN"))?;
    let package = dist.join(format!("berth_{}_{debian}.deb", wish.version));
    call(
        Command::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", "0")
            .args(["--root-owner-group", "-Zxz", "-z2", "--build"])
            .arg(&tree)
            .arg(&package),
    )?;
    remove(&tree)?;
    println!("{}\n{}", tarball.display(), package.display());
    Ok(Vec::new())
}

/// Lays out what is installed.
fn fill(root: &Path, wish: &Wish, tree: &Path) -> Result<(), String> {
    for program in PROGRAMS {
        let from = wish.programs.join(program);
        if !from.exists() {
            return Err(format!("{} is not there: ./dev build", from.display()));
        }
        let to = tree.join("usr/bin").join(program);
        install(&from, &to, 0o755)?;
        call(Command::new("strip").arg("-g").arg(&to))?;
    }
    // The name under which a containerd client's configuration finds the shim.
    let link = tree.join("usr/bin/containerd-shim-berth-v2");
    std::os::unix::fs::symlink("berth-shim", &link).map_err(|e| format!("{}: {e}", link.display()))?;
    let berth = tree.join("usr/bin/berth");
    let completions = [
        ("bash", "usr/share/bash-completion/completions/berth"),
        ("zsh", "usr/share/zsh/vendor-completions/_berth"),
        ("fish", "usr/share/fish/vendor_completions.d/berth.fish"),
    ];
    for (shell, to) in completions {
        let text = call(Command::new(&berth).args(["completion", shell]))?;
        write(&tree.join(to), &text, 0o644)?;
    }
    let pages = tree.join("usr/share/man/man1");
    fs::create_dir_all(&pages).map_err(|e| format!("{}: {e}", pages.display()))?;
    call(Command::new(&berth).arg("man").arg(&pages))?;
    install(
        &root.join("packaging/berthd.8"),
        &tree.join("usr/share/man/man8/berthd.8"),
        0o644,
    )?;
    let default = call(Command::new(tree.join("usr/bin/berthd")).args(["config", "default"]))?;
    write(&tree.join("usr/share/doc/berth/config.toml"), &default, 0o644)?;
    for unit in ["berthd.service", "berthd.socket"] {
        let to = tree.join("usr/lib/systemd/system").join(unit);
        install(&root.join("packaging").join(unit), &to, 0o644)?;
    }
    for (from, to) in [
        ("LICENSE", "copyright"),
        ("CHANGELOG.md", "CHANGELOG.md"),
        ("README.md", "README.md"),
    ] {
        install(&root.join(from), &tree.join("usr/share/doc/berth").join(to), 0o644)?;
    }
    for page in fs::read_dir(root.join("docs"))
        .map_err(|e| format!("docs: {e}"))?
        .flatten()
    {
        if page.path().extension().is_some_and(|end| end == "md") {
            install(
                &page.path(),
                &tree.join("usr/share/doc/berth/docs").join(page.file_name()),
                0o644,
            )?;
        }
    }
    Ok(())
}

/// The files that dpkg reads.
fn control(root: &Path, wish: &Wish, debian: &str, size: u64, to: &Path) -> Result<(), String> {
    let text = format!(
        "Package: berth\nVersion: {}\nArchitecture: {debian}\nMaintainer: the Berth authors <berth@example.invalid>\nInstalled-Size: {size}\n\
         Section: admin\nPriority: optional\nRecommends: systemd\nDescription: container supervisor\n \
         Starts containers from OCI bundles and supervises them. The daemon may be restarted, upgraded\n \
         and killed while containers run. Serves containerd's API, too.\n",
        wish.version
    );
    write(&to.join("control"), text.as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        install(&root.join("packaging/deb").join(script), &to.join(script), 0o755)?;
    }
    Ok(())
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    let bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    write(to, &bytes, mode)
}

fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let done = || {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(to, bytes)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    done().map_err(|e: io::Error| format!("{}: {e}", to.display()))
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("{}: {e}", folder.display())),
        _ => Ok(()),
    }
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        all += if data.is_dir() {
            size(&entry.path())?
        } else {
            data.len()
        };
    }
    Ok(all)
}

/// Its output; what it complains of is its own to say.
fn call(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{name} failed: {}", output.status))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Wish, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        wish(Path::new("/w"), &arguments)
    }

    #[test]
    fn options_are_checked() {
        let wish = of(&["--programs", "/p", "--version", "1.2~rc1"]).expect("legal");
        assert_eq!(
            (wish.programs.as_path(), wish.version.as_str()),
            (Path::new("/p"), "1.2~rc1")
        );
        assert!(of(&["--version"]).is_err() && of(&["--what", "x"]).is_err());
        assert!(of(&["--version", "v1"]).is_err() && of(&["--version", "1/2"]).is_err());
    }

    /// What dpkg installs over a running daemon must be given to systemd as one, and never end what runs.
    #[test]
    fn the_maintainer_scripts_stop_no_container() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb");
        for script in ["postinst", "prerm", "postrm"] {
            let text = fs::read_to_string(folder.join(script)).expect("a script");
            assert!(text.starts_with("#!/bin/sh\nset -e\n"), "{script}");
            assert!(!text.contains("kill") && !text.contains("rm -rf /run"), "{script}");
        }
    }
}
