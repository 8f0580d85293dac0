//! The whole crate on real files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_core::{ContainerKey, Namespace};

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("berth-meta-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        Dir(dir)
    }

    fn db(&self) -> PathBuf {
        self.0.join("meta.db")
    }

    fn open(&self) -> Meta {
        let opened = open(&self.db()).expect("opened");
        assert!(opened.set_aside.is_none(), "{:?}", opened.set_aside);
        opened.meta
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn moby() -> Namespace {
    Namespace::new("moby").expect("a name")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn any(value: &[u8]) -> Any {
    Any {
        type_url: "x/Spec".into(),
        value: value.to_vec(),
    }
}

fn container(id: &str) -> Container {
    Container {
        key: ContainerKey::parse("moby", id).expect("a key"),
        labels: labels(&[("a", "1"), ("b", "2")]),
        image: "i".into(),
        runtime: "io.containerd.runc.v2".into(),
        options: Some(any(b"")),
        spec: Some(any(b"{\"x\":  1}\0\xff")),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        sandbox: String::new(),
        created_at: 5,
        updated_at: 5,
        extensions: [("e".to_owned(), any(b"\x01"))].into(),
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_end() {
    let dir = Dir::new();
    let meta = dir.open();
    let made = container("a");
    let key = made.key.clone();
    let uuid = meta.call(|t| t.uuid()).await.expect("a uuid");
    assert_eq!((uuid.len(), uuid.split('-').count()), (36, 5), "{uuid}");
    meta.call({
        let made = made.clone();
        move |t| t.create_container(&made)
    })
    .await
    .expect("created");
    // As a SIGKILL leaves it: the first is never closed.
    let again = dir.open();
    let found = again
        .call({
            let key = key.clone();
            move |t| t.container(&key)
        })
        .await
        .expect("still there");
    assert_eq!(found, made);
    assert_eq!(again.call(|t| t.uuid()).await.expect("a uuid"), uuid);
    let listed = again.call(|t| t.containers(&moby())).await.expect("a list");
    assert_eq!(listed, [made]);
    let namespaces = again.call(|t| t.namespaces()).await.expect("a list");
    assert_eq!(namespaces, [(moby(), Labels::new())]);
    drop(meta);
}

#[tokio::test]
async fn a_failure_leaves_nothing_and_disturbs_nobody() {
    let dir = Dir::new();
    let meta = dir.open();
    let mut wrong = container("wrong");
    wrong.labels.insert("k".into(), "x".repeat(MAX_LABEL));
    let mut calls = Vec::new();
    for n in 0..50 {
        let (meta, wrong) = (meta.clone(), wrong.clone());
        calls.push(tokio::spawn(async move {
            let good = container(&format!("c{n}"));
            let (good, bad) = tokio::join!(
                meta.call(move |t| t.create_container(&good)),
                meta.call(move |t| {
                    t.create_container(&container(&format!("lost{n}")))?;
                    t.create_container(&wrong)
                })
            );
            good.expect("created");
            assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
        }));
    }
    for call in calls {
        call.await.expect("no panic");
    }
    let all = meta.call(|t| t.containers(&moby())).await.expect("a list");
    assert_eq!(all.len(), 50);
    let twice = meta.call(|t| t.create_container(&container("c1"))).await;
    assert!(matches!(twice, Err(Error::AlreadyExists { .. })));
}

#[tokio::test]
async fn updates_change_what_they_name() {
    let dir = Dir::new();
    let meta = dir.open();
    meta.call(|t| t.create_container(&container("a")))
        .await
        .expect("created");
    let key = container("a").key;
    let changes = vec![
        ContainerChange::Labels(LabelChange::One("a".into(), String::new())),
        ContainerChange::Labels(LabelChange::One("c".into(), "3".into())),
        ContainerChange::Extension("e".into(), None),
        ContainerChange::Image("j".into()),
    ];
    let changed = meta.call({
        let key = key.clone();
        move |t| t.update_container(&key, &changes, 9)
    });
    let changed = changed.await.expect("updated");
    let wanted = Container {
        labels: labels(&[("b", "2"), ("c", "3")]),
        extensions: Default::default(),
        image: "j".into(),
        updated_at: 9,
        ..container("a")
    };
    assert_eq!(changed, wanted);
    meta.call({
        let key = key.clone();
        move |t| t.delete_container(&key)
    })
    .await
    .expect("deleted");
    let gone = meta.call(move |t| t.delete_container(&key)).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_namespace_must_be_empty_to_go() {
    let dir = Dir::new();
    let meta = dir.open();
    let gone = meta.call(|t| t.delete_namespace(&moby())).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    meta.call(|t| t.create_container(&container("a")))
        .await
        .expect("created");
    let full = meta.call(|t| t.delete_namespace(&moby())).await;
    assert!(matches!(full, Err(Error::Precondition(_))));
    meta.call(|t| t.delete_container(&container("a").key))
        .await
        .expect("deleted");
    meta.call(|t| t.delete_namespace(&moby())).await.expect("deleted");
}

fn blob(digest: &str, marks: &[(&str, &str)]) -> Blob {
    Blob {
        digest: digest.into(),
        size: 1,
        created_at: 0,
        updated_at: 0,
        labels: labels(marks),
    }
}

#[tokio::test]
async fn garbage_is_what_no_root_leads_to() {
    let dir = Dir::new();
    let meta = dir.open();
    let fill = |t: &Tables<'_>| {
        let (n, lease) = (moby(), |id: &str, marks: &[(&str, &str)]| Lease {
            id: id.into(),
            created_at: 0,
            labels: labels(marks),
        });
        for blob in [
            blob("index", &[("containerd.io/gc.ref.content.m.0", "manifest")]),
            blob("manifest", &[("containerd.io/gc.ref.content.l.0", "layer")]),
            blob("layer", &[]),
            blob("referrer", &[("containerd.io/gc.bref.content", "layer")]),
            blob("root", &[("containerd.io/gc.root", "x")]),
            blob("leased", &[("containerd.io/gc.ref.content", "below")]),
            blob("below", &[]),
            blob("flat", &[("containerd.io/gc.ref.content", "lost-flat")]),
            blob("lost-flat", &[]),
            blob("lost-expired", &[]),
            blob("lost", &[("containerd.io/gc.ref.contents", "index")]),
        ] {
            t.add_blob(&n, &blob)?;
        }
        t.create_image(
            &n,
            &Image {
                name: "img".into(),
                labels: Labels::new(),
                target: Descriptor {
                    media_type: "m".into(),
                    digest: "index".into(),
                    size: 1,
                    annotations: Labels::new(),
                },
                created_at: 0,
                updated_at: 0,
            },
        )?;
        for (lease, holds) in [
            (
                lease("deep", &[("containerd.io/gc.expire", "1970-01-01T00:00:09Z")]),
                "leased",
            ),
            (lease("shallow", &[("containerd.io/gc.flat", "x")]), "flat"),
            (
                lease("over", &[("containerd.io/gc.expire", "1970-01-01T00:00:01Z")]),
                "lost-expired",
            ),
        ] {
            t.create_lease(&n, &lease)?;
            let resource = Resource {
                kind: "content".into(),
                id: holds.into(),
            };
            t.add_resource(&n, &lease.id, &resource)?;
        }
        Ok(())
    };
    meta.call(fill).await.expect("filled");
    let sweep = |seconds: i64| Sweep {
        now: seconds * 1_000_000_000,
    };
    let first = meta.call(move |t| t.collect(sweep(2))).await.expect("collected");
    let lost: Vec<&str> = first.blobs.iter().map(|(_, d)| d.as_str()).collect();
    assert_eq!(lost, ["lost", "lost-expired", "lost-flat"]);
    assert_eq!(first.next, Some(9_000_000_000));
    meta.call(|t| t.delete_image(&moby(), "img", Some("other")))
        .await
        .expect_err("another digest");
    meta.call(|t| t.delete_image(&moby(), "img", None))
        .await
        .expect("deleted");
    let second = meta.call(move |t| t.collect(sweep(9))).await.expect("collected");
    let lost: Vec<&str> = second.blobs.iter().map(|(_, d)| d.as_str()).collect();
    assert_eq!(lost, ["below", "index", "layer", "leased", "manifest", "referrer"]);
    let leases = meta.call(|t| t.leases(&moby())).await.expect("a list");
    assert_eq!(leases.len(), 1, "what has expired is gone: {leases:?}");
    let left = meta.call(|t| t.blobs(&moby())).await.expect("a list");
    let left: Vec<&str> = left.iter().map(|b| b.digest.as_str()).collect();
    assert_eq!(left, ["flat", "root"]);
}

#[tokio::test]
async fn a_broken_database_is_set_aside_whole() {
    let dir = Dir::new();
    for name in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        std::fs::write(dir.0.join(name), "no database, but of some length".repeat(1000)).expect("written");
    }
    let opened = open(&dir.db()).expect("opened all the same");
    let aside = opened.set_aside.expect("told");
    opened
        .meta
        .call(|t| t.create_container(&container("a")))
        .await
        .expect("usable");
    let name = aside.to.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("meta.db.20"), "{name}");
    let names = dir.names();
    for suffix in ["", "-wal", "-shm"] {
        assert!(names.contains(&format!("{name}{suffix}")), "{names:?}");
    }
    assert!(std::fs::read(&aside.to).expect("kept").starts_with(b"no database"));
}

#[tokio::test]
async fn a_newer_or_a_foreign_database_is_set_aside() {
    for sql in ["PRAGMA user_version = 99", "CREATE TABLE t (x)"] {
        let dir = Dir::new();
        rusqlite::Connection::open(dir.db())
            .expect("made")
            .execute_batch(sql)
            .expect("done");
        let aside = open(&dir.db()).expect("opened").set_aside;
        assert!(aside.is_some_and(|aside| aside.to.exists()), "{sql}");
    }
}

#[tokio::test]
async fn a_long_log_is_copied_back() {
    let dir = Dir::new();
    let meta = dir.open();
    for round in 0..8 {
        meta.call(move |t| {
            for n in 0..40 {
                let mut made = container(&format!("c{round}-{n}"));
                made.spec = Some(any(&[7; 32 << 10]));
                t.create_container(&made)?;
            }
            Ok(())
        })
        .await
        .expect("created");
    }
    let copied = || std::fs::metadata(dir.db()).is_ok_and(|file| file.len() > 8 << 20);
    for _ in 0..200 {
        if copied() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(copied(), "the log was never copied");
    meta.call(|t| t.create_container(&container("after")))
        .await
        .expect("created");
}
