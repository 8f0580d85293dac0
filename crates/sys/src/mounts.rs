//! Mounts: what is mounted below a path, and taking it away.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

/// One line of /proc/PID/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// Which part of the filesystem is seen.
    pub root: PathBuf,
    /// Where, as the process sees it.
    pub point: PathBuf,
    /// Of this mount, such as `rw,nosuid`.
    pub options: String,
    pub filesystem: String,
    pub source: PathBuf,
    /// Of the filesystem; for cgroup v1 the controllers are among them.
    pub super_options: String,
}

/// Lines that make no sense are left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

// 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |index: usize| Some(String::from_utf8_lossy(fields.get(index)?).into_owned());
    let path = |index: usize| Some(unescape(fields.get(index)?));
    Some(Mount {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        root: path(3)?,
        point: path(4)?,
        options: text(5)?,
        filesystem: text(dash + 1)?,
        source: path(dash + 2)?,
        super_options: text(dash + 3)?,
    })
}

/// Space, tab, newline and backslash are three octal digits each.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            digits.iter().try_fold(0u16, |value, digit| match digit {
                b'0'..=b'7' => Some(value * 8 + u16::from(digit - b'0')),
                _ => None,
            })
        });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// All mounts of this process's namespace.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Mount points at this path and below it, the deepest and latest first: in this order they can be unmounted.
pub fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = all()?
        .into_iter()
        .map(|mount| mount.point)
        .filter(|point| point.starts_with(path))
        .collect();
    found.reverse();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(found)
}

/// Takes a mount away from the tree at once (MNT_DETACH); the filesystem goes when its last user does. A symlink is not followed.
/// Nothing mounted there = done.
pub fn detach(point: &Path) -> io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn lines_of_the_manual_and_of_this_kernel() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\nnonsense\n1 2 3 - x\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt 2"));
        assert_eq!(
            (mounts[0].id, mounts[0].parent, mounts[0].filesystem.as_str()),
            (36, 35, "ext3")
        );
        assert_eq!(mounts[1].super_options, "rw,memory");
        assert!(all().unwrap().iter().any(|mount| mount.point == Path::new("/proc")));
        assert!(below(Path::new("/proc")).unwrap().contains(&"/proc".into()));
    }

    #[test]
    fn a_broken_escape_is_kept() {
        assert_eq!(unescape(b"a\\04b\\777\\"), Path::new("a\\04b\\777\\"));
    }
}
