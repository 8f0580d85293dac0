//! containerd's API: what its clients store outlives the daemon, content is what its digest says, garbage goes, and a task's end is told
//! when it can be seen.
use berth_e2e::v1::ContainerState;
use berth_e2e::{Daemon, LIMIT, Runtime, within};
use berth_wire::containerd::services::containers::v1::{
    container::Runtime as Named, containers_client::ContainersClient, *,
};
use berth_wire::containerd::services::content::v1::{content_client::ContentClient, *};
use berth_wire::containerd::services::events::ttrpc::v1::ForwardRequest;
use berth_wire::containerd::services::events::v1::{SubscribeRequest, events_client::EventsClient};
use berth_wire::containerd::services::images::v1::{images_client::ImagesClient, *};
use berth_wire::containerd::services::leases::v1::{leases_client::LeasesClient, *};
use berth_wire::containerd::services::namespaces::v1::{namespaces_client::NamespacesClient, *};
use berth_wire::containerd::services::tasks::v1::{GetRequest, tasks_client::TasksClient};
use berth_wire::containerd::types::{Descriptor, Envelope};
use berth_wire::containerd::{events, task, unpack};
use berth_wire::ttrpc;
use prost::Message;
use prost_types::{Any, FieldMask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Request, Status as Refused};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// A request in a namespace, under a lease if one is named.
pub fn within_namespace<T>(namespace: &str, lease: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = namespace.parse().expect("ascii");
    request.metadata_mut().insert("containerd-namespace", value);
    if !lease.is_empty() {
        let value = lease.parse().expect("ascii");
        request.metadata_mut().insert("containerd-lease", value);
    }
    request
}

pub fn moby<T>(message: T) -> Request<T> {
    within_namespace("moby", "", message)
}

fn container() -> Container {
    let any = |value: &[u8]| Any {
        type_url: "x.y/Spec".into(),
        value: value.to_vec(),
    };
    Container {
        id: "a".into(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        image: "img".into(),
        runtime: Some(Named {
            name: "io.containerd.runc.v2".into(),
            options: Some(any(b"\x00\xff")),
        }),
        spec: Some(any(b"{ \"not\":  canonical }")),
        extensions: [("e".to_owned(), any(b""))].into(),
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
    })
}

#[tokio::test]
async fn records_outlive_the_daemon_to_the_byte() {
    let mut d = Daemon::start(Runtime::Embedded).await;
    let mut containers = ContainersClient::new(d.channel());
    let create = CreateContainerRequest {
        container: Some(container()),
    };
    let made = containers
        .create(moby(create.clone()))
        .await
        .expect("created")
        .into_inner();
    let again = containers.create(moby(create)).await.expect_err("it is there");
    assert_eq!(again.code(), Code::AlreadyExists);
    let namespace = Namespace {
        name: "moby".into(),
        labels: [("containerd.io/defaults/runtime".to_owned(), "x".to_owned())].into(),
    };
    let update = UpdateNamespaceRequest {
        namespace: Some(namespace.clone()),
        update_mask: mask(&["labels.containerd.io/defaults/runtime"]),
    };
    NamespacesClient::new(d.channel())
        .update(update)
        .await
        .expect("updated");
    let lease = within(
        "a lease",
        LIMIT,
        LeasesClient::new(d.channel()).create(moby(CreateRequest::default())),
    )
    .await;
    let lease = lease.expect("made").into_inner().lease.expect("a lease");

    d.kill_and_restart().await;
    let mut containers = ContainersClient::new(d.channel());
    let get = || moby(GetContainerRequest { id: "a".into() });
    let found = containers.get(get()).await.expect("still there").into_inner();
    assert_eq!(found.container, made.container);
    let kept = found.container.expect("a container");
    assert_eq!((kept.spec, kept.extensions), (container().spec, container().extensions));
    let listed = NamespacesClient::new(d.channel())
        .list(ListNamespacesRequest::default())
        .await;
    assert_eq!(listed.expect("a list").into_inner().namespaces, [namespace]);
    let leases = LeasesClient::new(d.channel()).list(moby(ListRequest::default())).await;
    assert_eq!(leases.expect("a list").into_inner().leases, [lease]);

    let update = |container: Container, paths: &[&str]| {
        moby(UpdateContainerRequest {
            container: Some(container),
            update_mask: mask(paths),
        })
    };
    let mut other = container();
    other.labels = [("l".to_owned(), "w".to_owned())].into();
    other.runtime = None;
    other.extensions.clear();
    let refused = containers
        .update(update(other.clone(), &[]))
        .await
        .expect_err("another runtime");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = containers
        .update(update(other.clone(), &["runtime"]))
        .await
        .expect_err("a path");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let updated = containers
        .update(update(other, &["labels.l", "labels.k", "extensions.e"]))
        .await;
    let updated = updated.expect("updated").into_inner().container.expect("a container");
    assert_eq!(updated.labels, [("l".to_owned(), "w".to_owned())].into());
    assert!(updated.extensions.is_empty());
    containers
        .delete(moby(DeleteContainerRequest { id: "a".into() }))
        .await
        .expect("deleted");
    assert_eq!(containers.get(get()).await.expect_err("gone").code(), Code::NotFound);
}

#[tokio::test]
async fn a_database_of_no_use_is_set_aside_and_containers_run_on() {
    let mut d = Daemon::start(Runtime::Embedded).await;
    d.run(&d.sleeper("runs")).await;
    d.kill();
    let database = d.root().join("meta.db");
    std::fs::write(&database, "rubbish".repeat(1000)).expect("written");
    d.restart().await;
    assert_eq!(d.get("runs").await.state(), ContainerState::Running);
    let create = CreateContainerRequest {
        container: Some(container()),
    };
    let created = ContainersClient::new(d.channel()).create(moby(create)).await;
    created.expect("the new one works");
    let aside = std::fs::read_dir(d.root()).expect("a folder").flatten();
    let aside = aside
        .filter(|e| e.file_name().to_string_lossy().starts_with("meta.db.20"))
        .count();
    assert!(aside >= 1);
    assert!(d.log().contains("METADATA COULD NOT BE USED"), "{}", d.log());
}

fn part(action: WriteAction, offset: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: "greeting".into(),
        offset,
        data: data.into(),
        ..Default::default()
    }
}

async fn write(
    d: &Daemon,
    namespace: &str,
    lease: &str,
    parts: Vec<WriteContentRequest>,
) -> Result<Vec<WriteContentResponse>, Refused> {
    let requests = within_namespace(namespace, lease, tokio_stream::iter(parts));
    let mut stream = ContentClient::new(d.channel()).write(requests).await?.into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await? {
        answers.push(answer);
    }
    Ok(answers)
}

fn committed(expected: &str, total: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest {
        expected: expected.into(),
        total,
        ..part(WriteAction::Commit, 0, data)
    }
}

#[tokio::test]
async fn content_is_what_its_digest_says() {
    let mut d = Daemon::start(Runtime::Embedded).await;
    // Half of it, then the daemon dies.
    let half = write(&d, "moby", "", vec![part(WriteAction::Write, 0, b"he")])
        .await
        .expect("written");
    assert_eq!(half[0].offset, 2);
    d.kill_and_restart().await;
    let mut content = ContentClient::new(d.channel());
    let status = content
        .status(moby(StatusRequest {
            r#ref: "greeting".into(),
        }))
        .await;
    assert_eq!(status.expect("known").into_inner().status.expect("a status").offset, 2);
    let gap = write(&d, "moby", "", vec![part(WriteAction::Write, 4, b"x")])
        .await
        .expect_err("a gap");
    assert_eq!(gap.code(), Code::OutOfRange);
    let rest = vec![
        part(WriteAction::Stat, 0, b""),
        part(WriteAction::Write, 2, b"llo"),
        WriteContentRequest {
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..committed(HELLO, 5, b"")
        },
    ];
    let answers = write(&d, "moby", "", rest).await.expect("committed");
    assert_eq!((answers[0].offset, answers[2].digest.as_str()), (2, HELLO));
    let info = content
        .info(moby(InfoRequest { digest: HELLO.into() }))
        .await
        .expect("there")
        .into_inner();
    let info = info.info.expect("an info");
    assert_eq!((info.size, info.labels.len()), (5, 1));
    let again = write(&d, "moby", "", vec![committed(HELLO, 5, b"hello")])
        .await
        .expect_err("known");
    assert_eq!(again.code(), Code::AlreadyExists);
    // Another namespace needs no bytes.
    let unknown = content
        .info(within_namespace("other", "", InfoRequest { digest: HELLO.into() }))
        .await;
    assert_eq!(unknown.expect_err("of the other").code(), Code::NotFound);
    let first = WriteContentRequest {
        expected: HELLO.into(),
        ..part(WriteAction::Stat, 0, b"")
    };
    let shared = write(&d, "other", "", vec![first, committed(HELLO, 5, b"")])
        .await
        .expect("shared");
    assert_eq!((shared[0].offset, shared[0].total), (5, 5));

    let read = |offset, size| ReadContentRequest {
        digest: HELLO.into(),
        offset,
        size,
    };
    let mut stream = content.read(moby(read(1, 3))).await.expect("read").into_inner();
    assert_eq!(
        &stream.message().await.expect("read").expect("a piece").data[..],
        b"ell"
    );
    assert_eq!(
        content.read(moby(read(6, 0))).await.expect_err("too far").code(),
        Code::OutOfRange
    );
    for (wrong, code) in [
        (
            committed(&HELLO.replace("2cf", "2ce"), 0, b"x"),
            Code::FailedPrecondition,
        ),
        (committed("", 3, b"x"), Code::FailedPrecondition),
        (committed("md5:x", 0, b"x"), Code::InvalidArgument),
        (WriteContentRequest::default(), Code::InvalidArgument),
    ] {
        let refused = write(&d, "moby", "", vec![wrong]).await.expect_err("refused");
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    // One writer a ref.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(part(WriteAction::Stat, 0, b"")).await.expect("sent");
    let requests = moby(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let mut first = content.write(requests).await.expect("open").into_inner();
    first.message().await.expect("alive").expect("an answer");
    let second = write(&d, "moby", "", vec![part(WriteAction::Stat, 0, b"")])
        .await
        .expect_err("locked");
    assert_eq!(second.code(), Code::Unavailable);
    assert!(second.message().contains("ref greeting locked for"), "{second:?}");
    drop((sender, first));
}

#[tokio::test]
async fn garbage_goes_with_what_held_it() {
    let d = Daemon::start(Runtime::Embedded).await;
    let blob = d.root().join("content/blobs/sha256").join(&HELLO[7..]);
    let mut leases = LeasesClient::new(d.channel());
    let create = CreateRequest {
        id: "l".into(),
        ..Default::default()
    };
    leases.create(moby(create)).await.expect("made");
    write(&d, "moby", "l", vec![committed(HELLO, 5, b"hello")])
        .await
        .expect("written");
    let unknown = write(&d, "moby", "unknown", vec![part(WriteAction::Stat, 0, b"")]).await;
    assert_eq!(unknown.expect_err("no such lease").code(), Code::NotFound);
    let held = leases
        .list_resources(moby(ListResourcesRequest { id: "l".into() }))
        .await;
    let held = held.expect("a list").into_inner().resources;
    assert_eq!(held.iter().map(|r| r.r#type.as_str()).collect::<Vec<_>>(), ["content"]);
    let image = Image {
        name: "i".into(),
        target: Some(Descriptor {
            media_type: "m".into(),
            digest: HELLO.into(),
            size: 5,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut images = ImagesClient::new(d.channel());
    let create = CreateImageRequest {
        image: Some(image),
        ..Default::default()
    };
    images.create(moby(create)).await.expect("made");
    let delete = DeleteRequest {
        id: "l".into(),
        sync: true,
    };
    leases.delete(moby(delete)).await.expect("deleted");
    assert!(blob.exists(), "the image holds it");
    let delete = DeleteImageRequest {
        name: "i".into(),
        sync: true,
        ..Default::default()
    };
    images.delete(moby(delete)).await.expect("deleted");
    assert!(!blob.exists(), "nothing holds it");
    let info = ContentClient::new(d.channel())
        .info(moby(InfoRequest { digest: HELLO.into() }))
        .await;
    assert_eq!(info.expect_err("collected").code(), Code::NotFound);
}

/// Clients ask for the task as soon as they hear of its end, and take "running" for a reason to keep it for ever.
#[tokio::test]
async fn a_told_end_can_be_seen() {
    let d = Daemon::start(Runtime::Embedded).await;
    let filters = vec!["topic==\"/tasks/exit\"".to_owned()];
    let events = EventsClient::new(d.channel())
        .subscribe(SubscribeRequest { filters })
        .await;
    let mut events = events.expect("subscribed").into_inner();
    let mut tasks = TasksClient::new(d.channel());
    for n in 0..40 {
        d.run(&d.sh(&format!("c{n}"), "exit 3")).await;
        let envelope = within("an exit", LIMIT, events.message())
            .await
            .expect("alive")
            .expect("an event");
        let exit = unpack::<events::TaskExit>(&envelope.event.expect("a payload"))
            .expect("an exit")
            .expect("valid");
        let get = GetRequest {
            container_id: exit.container_id,
            ..Default::default()
        };
        let seen = tasks
            .get(within_namespace("default", "", get))
            .await
            .expect("there")
            .into_inner();
        let seen = seen.process.expect("a process");
        assert_eq!((seen.status(), seen.exit_status), (task::Status::Stopped, 3), "{n}");
    }
}

#[tokio::test]
async fn shims_of_others_tell_events_on_the_second_socket() {
    let d = Daemon::start(Runtime::Embedded).await;
    let filters = vec!["topic==\"/test\"".to_owned()];
    let events = EventsClient::new(d.channel())
        .subscribe(SubscribeRequest { filters })
        .await;
    let mut events = events.expect("subscribed").into_inner();
    let mut socket = d.socket().into_os_string();
    socket.push(".ttrpc");
    let connect = || tokio::net::UnixStream::connect(&socket);
    let mut rubbish = connect().await.expect("connected");
    rubbish.write_all(&[0xff; 64]).await.expect("sent");
    assert_eq!(rubbish.read(&mut [0; 16]).await.unwrap_or(0), 0, "cut off");
    let mut shim = connect().await.expect("connected");
    let envelope = Envelope {
        timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        namespace: "moby".into(),
        topic: "/test".into(),
        event: Some(Any::default()),
    };
    for (stream, method, wanted) in [(1, "Forward", Code::Ok), (3, "Backward", Code::Unimplemented)] {
        let request = ttrpc::Request {
            service: "containerd.services.events.ttrpc.v1.Events".into(),
            method: method.into(),
            payload: ForwardRequest {
                envelope: Some(envelope.clone()),
            }
            .encode_to_vec()
            .into(),
            ..Default::default()
        };
        let frame = ttrpc::encode_message(stream, ttrpc::Kind::Request, ttrpc::FLAG_REMOTE_CLOSED, &request);
        shim.write_all(&frame.expect("short")).await.expect("sent");
        let (mut decoder, mut buffer) = (ttrpc::Decoder::new(), [0; 4096]);
        let answer = loop {
            if let Some(frame) = decoder.pop().expect("frames") {
                break frame;
            }
            let n = shim.read(&mut buffer).await.expect("read");
            assert!(n > 0, "cut off");
            decoder.push(&buffer[..n]);
        };
        let response = ttrpc::Response::decode(answer.body).expect("a response");
        let code = response.status.map_or(0, |status| status.code);
        assert_eq!((answer.stream, Code::from_i32(code)), (stream, wanted));
    }
    let told = within("the event", LIMIT, events.message())
        .await
        .expect("alive")
        .expect("an event");
    assert_eq!(told, envelope);
}
