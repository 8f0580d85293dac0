//! Garbage: what no root leads to. A root is an image, a lease, a container's reference, or a label that says so; blobs refer to
//! each other by labels.
//!
//! ```text
//! containerd.io/gc.root                    it is one
//! containerd.io/gc.expire                  RFC 3339: a lease or image that ends by itself
//! containerd.io/gc.flat                    a lease that holds no more than it names
//! containerd.io/gc.ref.content[.X][/X]     digest of what this one needs       gc.ref.image  the name of one
//! containerd.io/gc.bref.content[.X]        digest of what needs this one       gc.bref.image, gc.bref.container
//! ```

use std::collections::{BTreeMap, BTreeSet};

use berth_core::Namespace;

use super::Tables;
use super::labels::{Kind, Labels};
use crate::error::Error;

const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";
const REF_CONTENT: &str = "containerd.io/gc.ref.content";
const REF_IMAGE: &str = "containerd.io/gc.ref.image";
const BREF_CONTENT: &str = "containerd.io/gc.bref.content";
const BREF_IMAGE: &str = "containerd.io/gc.bref.image";
const BREF_CONTAINER: &str = "containerd.io/gc.bref.container";

/// A run over everything.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Nanoseconds since the epoch.
    pub now: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Digests that a namespace lost; another may still have them.
    pub blobs: Vec<(Namespace, String)>,
    pub images: Vec<(Namespace, String)>,
    /// Ingests that leases hold, by their refs.
    pub held_ingests: BTreeSet<(Namespace, String)>,
    /// When the next lease or image expires by itself.
    pub next: Option<i64>,
}

/// The values under a key or its sub-keys.
fn values<'a>(labels: &'a Labels, prefix: &'static str) -> impl Iterator<Item = &'a str> {
    labels
        .range(prefix.to_owned()..)
        .take_while(move |(key, _)| key.starts_with(prefix))
        .filter(move |(key, _)| matches!(key.as_bytes().get(prefix.len()), None | Some(b'.' | b'/')))
        .map(|(_, value)| value.as_str())
}

impl Tables<'_> {
    pub fn collect(&self, sweep: Sweep) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        for (namespace, _) in self.namespaces()? {
            self.collect_in(&namespace, sweep, &mut collected)?;
        }
        Ok(collected)
    }

    fn collect_in(&self, namespace: &Namespace, sweep: Sweep, collected: &mut Collected) -> Result<(), Error> {
        let mut expires = |labels: &Labels| {
            let at = labels.get(EXPIRE).and_then(|text| rfc3339(text));
            let ended = at.is_some_and(|at| at <= sweep.now);
            if let Some(at) = at.filter(|_| !ended) {
                collected.next = Some(collected.next.map_or(at, |next| next.min(at)));
            }
            ended
        };
        let mut marks = Marks::default();
        let mut leased_images = BTreeSet::new();
        for lease in self.leases(namespace)? {
            if expires(&lease.labels) {
                self.delete_lease(namespace, &lease.id)?;
                continue;
            }
            let flat = lease.labels.contains_key(FLAT);
            for resource in self.resources(namespace, &lease.id)? {
                match resource.kind.as_str() {
                    "content" if flat => drop(marks.flat.insert(resource.id)),
                    "content" => marks.blobs.push(resource.id),
                    "images" => drop(leased_images.insert(resource.id)),
                    "ingests" => drop(collected.held_ingests.insert((namespace.clone(), resource.id))),
                    _ => {}
                }
            }
        }
        marks.all = self
            .blobs(namespace)?
            .into_iter()
            .map(|b| (b.digest, b.labels))
            .collect();
        let images = self.images(namespace)?;
        if marks.all.is_empty() && images.is_empty() {
            return Ok(());
        }
        for image in images {
            if expires(&image.labels) && !leased_images.contains(&image.name) {
                self.delete_image(namespace, &image.name, None)?;
                collected.images.push((namespace.clone(), image.name));
                continue;
            }
            marks.blobs.push(image.target.digest.clone());
            marks
                .blobs
                .extend(values(&image.labels, REF_CONTENT).map(str::to_owned));
            marks.names.insert((BREF_IMAGE, image.name.clone()));
            marks.images.insert(image.name, image.target.digest);
        }
        for (id, labels) in self.all_labels(Kind::Container, namespace)? {
            marks.refer(&labels);
            marks.names.insert((BREF_CONTAINER, id));
        }
        for digest in marks.dead() {
            self.delete_blob(namespace, &digest)?;
            collected.blobs.push((namespace.clone(), digest));
        }
        Ok(())
    }
}

/// What is reached in one namespace.
#[derive(Default)]
struct Marks {
    all: BTreeMap<String, Labels>,
    images: BTreeMap<String, String>,
    /// To be followed.
    blobs: Vec<String>,
    /// Reached, but not followed.
    flat: BTreeSet<String>,
    /// Images and containers that are there, by the label that asks for them.
    names: BTreeSet<(&'static str, String)>,
}

impl Marks {
    fn refer(&mut self, labels: &Labels) {
        self.blobs.extend(values(labels, REF_CONTENT).map(str::to_owned));
        let images = values(labels, REF_IMAGE).filter_map(|name| self.images.get(name));
        self.blobs.extend(images.cloned());
    }

    fn dead(mut self) -> Vec<String> {
        let mut backwards = BTreeMap::<String, Vec<String>>::new();
        for (digest, labels) in &self.all {
            let kept = [BREF_IMAGE, BREF_CONTAINER]
                .into_iter()
                .any(|label| values(labels, label).any(|name| self.names.contains(&(label, name.to_owned()))));
            if labels.contains_key(ROOT) || kept {
                self.blobs.push(digest.clone());
            }
            for needed_by in values(labels, BREF_CONTENT) {
                backwards.entry(needed_by.to_owned()).or_default().push(digest.clone());
            }
        }
        let mut alive = BTreeSet::new();
        while let Some(digest) = self.blobs.pop() {
            if !alive.insert(digest.clone()) {
                continue;
            }
            self.blobs.extend(backwards.remove(&digest).unwrap_or_default());
            if let Some(labels) = self.all.get(&digest).cloned() {
                self.refer(&labels);
            }
        }
        let Marks { all, flat, .. } = self;
        all.into_keys()
            .filter(|digest| !alive.contains(digest) && !flat.contains(digest))
            .collect()
    }
}

/// Nanoseconds since the epoch.
fn rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !separators
        .iter()
        .all(|(at, byte)| text.as_bytes().get(*at) == Some(byte))
        || !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' '))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = rest.split_at(digits);
            let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
            (nine.parse::<i64>().ok()?, zone)
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    // Days from civil, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2000-02-29T00:00:00Z"), Some(951_782_400_000_000_000));
        assert_eq!(rfc3339("2000-02-29T01:00:00.5+01:00"), Some(951_782_400_500_000_000));
        for wrong in [
            "",
            "2000-02-29",
            "2000-13-01T00:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00+1",
            "é000-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*", near in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[-+.Z0-9:]{0,12}") {
            let _ = (rfc3339(&text), rfc3339(&near));
        }
    }
}
