//! Compiled programs kept in a folder: libseccomp takes longer over Docker's profile than the kernel over the whole start.
//!
//! Invariants: an entry holds all that its program depends on and is used only if that is, byte by byte, what is asked for, so
//! that no hash decides about a filter; the folder and its files belong to the caller and nobody else may write there, or they are
//! left alone; what is damaged, missing or can't be written costs the time of compiling and nothing else; the folder is bounded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::file::{self, Open};
use berth_sys::{dir, process};
use oci_spec::runtime::LinuxSeccomp;

use crate::error::OciError;

/// Changes with the form of an entry, and whenever the same profile is compiled in another way.
const FORMAT: &[u8; 8] = b"berthsc1";
/// Entries; a machine has a handful of profiles.
const MOST: usize = 64;
/// Bytes of an entry.
const LONGEST: u64 = 4 << 20;
/// Bytes of a `struct sock_filter`.
const INSTRUCTION: usize = 8;
/// Format, length of the key, checksum of key and program.
const HEAD: usize = 24;

/// The program of `profile`, from `folder` if it is there.
pub(super) fn program(
    folder: Option<&Path>,
    profile: &LinuxSeccomp,
    compile: impl FnOnce() -> Result<Vec<u8>, OciError>,
) -> Result<Vec<u8>, OciError> {
    let (Some(folder), Some(key)) = (folder, key(profile)) else {
        return compile();
    };
    let name = format!("{:016x}", checksum(&[&key]));
    if let Some(known) = read(folder, &name, &key) {
        return Ok(known);
    }
    let program = compile()?;
    let _ = write(folder, &name, &key, &program);
    Ok(program)
}

/// All that a program depends on: the profile, who compiles it, for which machine and kernel.
fn key(profile: &LinuxSeccomp) -> Option<Vec<u8>> {
    let mut key = format!(
        "{} {} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        super::library_version(),
        // What this kernel can do, as far as the compiler cares.
        libseccomp::get_api(),
        std::env::consts::ARCH,
    )
    .into_bytes();
    serde_json::to_writer(&mut key, profile).ok()?;
    Some(key)
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    let opened = dir::open(folder)?;
    if file::is_ours_alone(&opened)? {
        Ok(opened)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn read(folder: &Path, name: &str, key: &[u8]) -> Option<Vec<u8>> {
    let entry = file::open_at(open(folder).ok()?, name, Open::Read).ok()?;
    if !file::is_ours_alone(&entry).ok()? {
        return None;
    }
    let mut bytes = Vec::with_capacity(HEAD + 2 * key.len());
    File::from(entry).take(LONGEST).read_to_end(&mut bytes).ok()?;
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let (known, program) = rest.split_at_checked(usize::try_from(number(8)?).ok()?)?;
    let whole = head.starts_with(FORMAT) && number(16)? == checksum(&[known, program]);
    let fits = known == key && !program.is_empty() && program.len() % INSTRUCTION == 0;
    (whole && fits).then(|| program.to_vec())
}

fn write(folder: &Path, name: &str, key: &[u8], program: &[u8]) -> io::Result<()> {
    let opened = match open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(last)) = (folder.parent(), folder.file_name()) else {
                return Err(error);
            };
            dir::make_at(dir::make_all(parent, 0o711)?, last, 0o700)?
        }
        other => other?,
    };
    let entries = dir::entries(&opened)?;
    if entries.len() >= MOST {
        for entry in entries {
            file::unlink_at(&opened, &entry.name)?;
        }
    }
    // Not the same file for two who compile at once.
    let aside = format!(".{name}.{}", process::getpid());
    let mut entry = File::from(
        file::create_new_at(&opened, &aside, Open::Write, 0o600).inspect_err(|_| {
            // Of one who was killed; the next has room.
            let _ = file::unlink_at(&opened, &aside);
        })?,
    );
    let mut bytes = Vec::with_capacity(HEAD + key.len() + program.len());
    bytes.extend_from_slice(FORMAT);
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&checksum(&[key, program]).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(program);
    let written = entry
        .write_all(&bytes)
        .and_then(|()| file::rename_at(&opened, &aside, name));
    written.inspect_err(|_| {
        let _ = file::unlink_at(&opened, &aside);
    })
}

/// FNV-1a over eight bytes at a time: finds a file and a torn one, and is asked for nothing more.
fn checksum(parts: &[&[u8]]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| sum = (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    for part in parts {
        add(part.len() as u64);
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            add(u64::from_le_bytes(word));
        }
    }
    sum
}

#[cfg(test)]
mod test {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::Filter;
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("berth-filters-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Place(path)
        }

        fn only_entry(&self) -> PathBuf {
            let mut all = std::fs::read_dir(&self.0).expect("a folder");
            let first = all.next().expect("an entry").expect("readable").path();
            assert!(all.next().is_none());
            first
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn profile(allowed: &str) -> LinuxSeccomp {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
                "syscalls":[{{"names":["read","exit_group",{allowed}],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        serde_json::from_str(&text).expect("a profile")
    }

    fn kept(place: &Place, profile: &LinuxSeccomp) -> Vec<u8> {
        program(Some(&place.0), profile, || panic!("compiled again")).expect("kept")
    }

    fn compiled(place: &Place, profile: &LinuxSeccomp) -> Vec<u8> {
        let mut ran = false;
        let fresh = Filter::compile(profile).expect("legal").program().to_vec();
        let done = program(Some(&place.0), profile, || {
            ran = true;
            Ok(fresh.clone())
        });
        assert!(ran, "it was not compiled");
        done.expect("compiled")
    }

    #[test]
    fn each_profile_gets_its_own_program() {
        let place = Place::new("two");
        let (one, two) = (profile(r#""mkdir""#), profile(r#""mkdir","rmdir""#));
        let programs = [compiled(&place, &one), compiled(&place, &two)];
        assert_ne!(programs[0], programs[1]);
        for _ in 0..2 {
            assert_eq!([kept(&place, &one), kept(&place, &two)], programs);
        }
        for (profile, program) in [&one, &two].into_iter().zip(&programs) {
            assert_eq!(Filter::compile(profile).expect("legal").program(), program);
        }
        let mode = std::fs::metadata(&place.0).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_program_under_anothers_name_is_not_used() {
        let place = Place::new("collision");
        let (one, two) = (profile(r#""mkdir""#), profile(r#""rmdir""#));
        compiled(&place, &one);
        let first = place.only_entry();
        let name = format!("{:016x}", checksum(&[&key(&two).expect("a key")]));
        std::fs::rename(first, place.0.join(name)).expect("renamed");
        let fresh = compiled(&place, &two);
        assert_eq!(kept(&place, &two), fresh);
    }

    #[test]
    fn what_is_damaged_or_not_ours_alone_is_not_used() {
        let place = Place::new("damaged");
        let one = profile(r#""mkdir""#);
        compiled(&place, &one);
        let entry = place.only_entry();
        let whole = std::fs::read(&entry).expect("readable");
        let mut changed = whole.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        for bytes in [
            &changed[..],
            &whole[..whole.len() - INSTRUCTION],
            &whole[..HEAD - 1],
            b"",
        ] {
            std::fs::write(&entry, bytes).expect("written");
            compiled(&place, &one);
            kept(&place, &one);
        }
        let set = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        set(&entry, 0o620).expect("mode");
        compiled(&place, &one);
        kept(&place, &one);
        set(&place.0, 0o770).expect("mode");
        compiled(&place, &one);
        compiled(&place, &one);
    }

    #[test]
    fn the_folder_is_bounded_and_need_not_be_there() {
        let place = Place::new("bounded");
        let call = |number: usize| {
            let mut one = profile(r#""mkdir""#);
            one.set_default_errno_ret(Some(u32::try_from(number).expect("small")));
            one
        };
        for number in 1..=MOST + 3 {
            let done = program(Some(&place.0), &call(number), || Ok(vec![0; INSTRUCTION]));
            done.expect("compiled");
        }
        assert!(std::fs::read_dir(&place.0).expect("a folder").count() <= MOST);
        let nowhere = Path::new("/proc/self/berth/filters");
        program(Some(nowhere), &call(1), || Ok(vec![0; INSTRUCTION])).expect("compiled");
    }
}
