//! The whole crate on real files.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_core::Namespace;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Dir(std::env::temp_dir().join(format!("berth-content-{}-{serial}", std::process::id())))
    }

    fn open(&self) -> Store {
        Store::open(&self.0).expect("opened")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn moby() -> Namespace {
    Namespace::new("moby").expect("a name")
}

#[test]
fn an_ingest_goes_on_after_a_crash() {
    let dir = Dir::new();
    let store = dir.open();
    let hello = Digest::parse(HELLO).expect("a digest");
    let mut writer = store.writer(&moby(), "../ref", 5, Some(&hello)).expect("begun");
    writer.write(b"he").expect("written");
    let locked = store.writer(&moby(), "../ref", 0, None).err().expect("one at a time");
    assert!(locked.to_string().contains("ref ../ref locked for"));
    store
        .writer(&Namespace::default(), "../ref", 0, None)
        .expect("another namespace has its own");
    // A new store is a new daemon.
    let store = dir.open();
    let mut writer = store.writer(&moby(), "../ref", 0, None).expect("again");
    let about = writer.about().clone();
    assert_eq!((about.offset, about.total, about.expected), (2, 5, Some(hello.clone())));
    writer.write(b"llo").expect("written");
    assert_eq!(writer.digest(), hello);
    assert!(matches!(writer.seal(4, None), Err(Error::Size { .. })));
    let other = Digest::parse(&HELLO.replace("2cf", "2ce")).expect("a digest");
    assert!(matches!(writer.seal(5, Some(&other)), Err(Error::Mismatch { .. })));
    let digest = writer.seal(5, Some(&hello)).expect("sealed");
    assert_eq!(store.size(&hello), None);
    store.publish(&writer, &digest).expect("published");
    store.finish(writer, &digest).expect("finished");
    let mut text = String::new();
    store
        .read(&hello)
        .expect("there")
        .read_to_string(&mut text)
        .expect("read");
    assert_eq!((text.as_str(), store.size(&hello)), ("hello", Some(5)));
    assert_eq!(store.ingests().expect("a list").len(), 1, "the other namespace's");
    store.remove(&hello).expect("removed");
    assert!(matches!(store.read(&hello), Err(Error::NoBlob(_))));
}

#[test]
fn an_ingest_can_be_restarted_and_aborted() {
    let dir = Dir::new();
    let store = dir.open();
    let mut writer = store.writer(&moby(), "r", 0, None).expect("begun");
    writer.write(b"wrong").expect("written");
    writer.restart().expect("restarted");
    writer.write(b"hello").expect("written");
    assert_eq!(writer.digest().as_str(), HELLO);
    store.expire(|_| true).expect("expired");
    assert_eq!(store.ingests().expect("a list").len(), 1, "it is written just now");
    drop(writer);
    store.abort(&moby(), "r").expect("aborted");
    assert!(matches!(store.abort(&moby(), "r"), Err(Error::NoIngest(_))));
    drop(store.writer(&moby(), "s", 0, None).expect("begun"));
    store.expire(|ingest| ingest.name == "s").expect("expired");
    assert_eq!(store.ingests().expect("a list"), []);
}

proptest::proptest! {
    #[test]
    fn digests_are_safe_paths(text in ".*", hex in "[0-9a-fA-F/.]{64}") {
        for text in [text, format!("sha256:{hex}")] {
            if let Ok(digest) = Digest::parse(&text) {
                proptest::prop_assert!(!digest.hex().contains(['/', '.']));
                proptest::prop_assert_eq!(digest.as_str(), text.as_str());
            }
        }
    }
}
