//! What containerd's services do with what no honest client sends: the documented status, bounded memory, nothing for others to notice.
use crate::stored::{moby, within_namespace};
use berth_e2e::v1::ContainerState;
use berth_e2e::{Daemon, LIMIT, Runtime, proc, within};
use berth_wire::containerd::services::containers::v1::{
    container::Runtime as Named, containers_client::ContainersClient, *,
};
use berth_wire::containerd::services::content::v1::{content_client::ContentClient, *};
use berth_wire::containerd::services::events::v1::{PublishRequest, SubscribeRequest, events_client::EventsClient};
use berth_wire::containerd::services::images::v1::{ListImagesRequest, images_client::ImagesClient};
use berth_wire::containerd::services::leases::v1::{ListRequest, leases_client::LeasesClient};
use berth_wire::containerd::services::tasks::v1::{
    CreateTaskRequest, ExecProcessRequest, MetricsRequest, UpdateTaskRequest, tasks_client::TasksClient,
};
use berth_wire::containerd::services::version::v1::version_client::VersionClient;
use berth_wire::containerd::{json, pack, runc};
use prost::bytes::{Buf, BufMut};
use prost_types::Any;
use std::time::{Duration, Instant};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

/// Bytes as they are, in place of a message.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// The status of a call with these bytes.
async fn call(channel: &Channel, path: &str, bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection stands");
    let path: PathAndQuery = path.parse().expect("a path");
    let answer = grpc.unary(moby(bytes.to_vec()), path, Raw);
    within("an answer", LIMIT, answer)
        .await
        .map(|answer| answer.into_inner())
}

fn rss(d: &Daemon) -> u64 {
    let kib = proc::status(d.pid(), "VmRSS").expect("a running daemon");
    kib.trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

/// Runs the work and gives how much larger the daemon was at most meanwhile.
async fn growth<T>(d: &Daemon, work: impl Future<Output = T>) -> (u64, T) {
    let before = rss(d);
    let mut most = before;
    let mut work = std::pin::pin!(work);
    loop {
        let done = tokio::time::timeout(Duration::from_millis(20), &mut work).await;
        most = most.max(rss(d));
        if let Ok(done) = done {
            return (most - before, done);
        }
    }
}

async fn serves(d: &Daemon) {
    let begin = Instant::now();
    let mut version = VersionClient::new(d.channel());
    within("another client's answer", LIMIT, version.version(()))
        .await
        .expect("it serves");
    println!("another client waited {:?}", begin.elapsed());
}

#[tokio::test]
async fn malformed_messages() {
    const METHODS: &[&str] = &[
        "version.v1.Version/Version",
        "introspection.v1.Introspection/Plugins",
        "namespaces.v1.Namespaces/Get",
        "namespaces.v1.Namespaces/Create",
        "namespaces.v1.Namespaces/Update",
        "containers.v1.Containers/Get",
        "containers.v1.Containers/List",
        "containers.v1.Containers/Create",
        "containers.v1.Containers/Update",
        "tasks.v1.Tasks/Create",
        "tasks.v1.Tasks/Start",
        "tasks.v1.Tasks/Kill",
        "tasks.v1.Tasks/Exec",
        "tasks.v1.Tasks/Update",
        "tasks.v1.Tasks/Metrics",
        "tasks.v1.Tasks/Wait",
        "events.v1.Events/Publish",
        "events.v1.Events/Forward",
        "leases.v1.Leases/Create",
        "leases.v1.Leases/AddResource",
        "content.v1.Content/Info",
        "content.v1.Content/Update",
        "content.v1.Content/Status",
        "content.v1.Content/Abort",
        "images.v1.Images/Create",
        "images.v1.Images/Update",
    ];
    let d = Daemon::start(Runtime::Embedded).await;
    let pid = d.run(&d.sleeper("runs")).await;
    let channel = d.channel();
    for method in METHODS {
        let path = format!("/containerd.services.{method}");
        // A key that does not end; a field that is longer than the message; a group that was never begun.
        for bytes in [&[0xff; 16][..], b"\x0a\x09c", b"\x0c"] {
            let refused = call(&channel, &path, bytes).await.expect_err("no message");
            assert_eq!(refused.code(), Code::Internal, "{method} {bytes:?}: {refused:?}");
        }
    }
    let unknown = call(&channel, "/containerd.services.tasks.v1.Tasks/Fly", b"").await;
    assert_eq!(unknown.expect_err("no such method").code(), Code::Unimplemented);
    let unknown = call(&channel, "/containerd.services.snapshots.v1.Snapshots/Stat", b"").await;
    assert_eq!(unknown.expect_err("no such service").code(), Code::Unimplemented);
    assert_eq!(d.get("runs").await.pid, pid);
}

fn any(type_url: &str, value: &[u8]) -> Any {
    Any {
        type_url: type_url.into(),
        value: value.to_vec(),
    }
}

fn container(id: &str, spec: Any) -> Container {
    Container {
        id: id.into(),
        runtime: Some(Named {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: Some(spec),
        ..Default::default()
    }
}

async fn create(d: &Daemon, container: Container) -> Result<Container, Status> {
    let request = CreateContainerRequest {
        container: Some(container),
    };
    let mut containers = ContainersClient::new(d.channel())
        .max_encoding_message_size(64 << 20)
        .max_decoding_message_size(64 << 20);
    let made = within("create", LIMIT, containers.create(moby(request))).await?;
    Ok(made.into_inner().container.expect("a container"))
}

async fn task(d: &Daemon, id: &str, options: Option<Any>) -> Result<u32, Status> {
    let request = CreateTaskRequest {
        container_id: id.into(),
        options,
        ..Default::default()
    };
    let mut tasks = TasksClient::new(d.channel());
    Ok(within("a task", LIMIT, tasks.create(moby(request)))
        .await?
        .into_inner()
        .pid)
}

#[tokio::test]
async fn unknown_types_and_specs_that_are_none() {
    let d = Daemon::start(Runtime::Embedded).await;
    // What is no document at all is the request's fault; of what is one the runtime says what it lacks, as containerd's shims do.
    let (request, runtime) = (Code::InvalidArgument, Code::Unknown);
    for (id, spec, code, says) in [
        ("text", &b"rubbish"[..], request, "spec"),
        ("list", b"[]", runtime, "config.json"),
        ("empty", b"{}", runtime, "ociVersion"),
        ("deep", "[".repeat(100_000).as_bytes(), request, "spec"),
        ("number", b"{\"process\": 7}", request, "spec"),
    ] {
        create(&d, container(id, any(json::SPEC, spec)))
            .await
            .expect("a record is a record");
        let refused = task(&d, id, None).await.expect_err("no container");
        assert_eq!(refused.code(), code, "{id}: {refused:?}");
        assert!(refused.message().contains(says), "{id}: {refused:?}");
    }
    create(&d, container("typed", any("x.y/Z", b"{}")))
        .await
        .expect("any type is kept");
    let options = |any| task(&d, "typed", Some(any));
    let refused = options(any("x.y.Options", b"\x01")).await.expect_err("unknown options");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("x.y.Options"), "{refused:?}");
    let options_url = pack(&runc::Options::default()).type_url;
    let refused = options(any(&options_url, &[0xff; 16]))
        .await
        .expect_err("malformed options");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    // Of a task that runs.
    let (mut tasks, pid) = (TasksClient::new(d.channel()), d.run(&d.sleeper("runs")).await);
    let here = |container_id: &str, type_url: &str, value: &[u8]| {
        let resources = Some(any(type_url, value));
        let container_id = container_id.to_owned();
        within_namespace(
            "default",
            "",
            UpdateTaskRequest {
                container_id,
                resources,
                ..Default::default()
            },
        )
    };
    for (type_url, value) in [
        ("x.y/Resources", &b"{}"[..]),
        (json::LINUX_RESOURCES, b"rubbish"),
        (json::LINUX_RESOURCES, b"{\"memory\": \"much\"}"),
    ] {
        let refused = tasks
            .update(here("runs", type_url, value))
            .await
            .expect_err("no resources");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    for spec in [
        None,
        Some(any(json::PROCESS, b"rubbish")),
        Some(any(json::PROCESS, b"[]")),
    ] {
        let exec = ExecProcessRequest {
            container_id: "runs".into(),
            exec_id: "e".into(),
            spec,
            ..Default::default()
        };
        let refused = tasks.exec(within_namespace("default", "", exec)).await;
        assert_eq!(refused.expect_err("no process").code(), Code::InvalidArgument);
    }
    let runs = d.get("runs").await;
    assert_eq!((runs.pid, runs.state()), (pid, ContainerState::Running));
}

#[tokio::test]
async fn ids_and_labels_over_the_limits() {
    let d = Daemon::start(Runtime::Embedded).await;
    let spec = || any(json::SPEC, b"{}");
    for id in ["", "-a", "a/b", "a..b", "a b", &"x".repeat(77)] {
        let refused = create(&d, container(id, spec())).await.expect_err("no id");
        assert_eq!(refused.code(), Code::InvalidArgument, "{id:?}: {refused:?}");
    }
    create(&d, container(&"x".repeat(76), spec()))
        .await
        .expect("the longest");
    let labeled = |key: String, value: String| Container {
        labels: [(key, value)].into(),
        ..container("l", spec())
    };
    let refused = create(&d, labeled("k".into(), "v".repeat(4096)))
        .await
        .expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    create(&d, labeled("k".into(), "v".repeat(4095)))
        .await
        .expect("the longest");
}

/// Twelve clients with specs of just under the message's limit; one over it.
#[tokio::test]
async fn huge_specs() {
    let d = Daemon::start(Runtime::Embedded).await;
    let huge = |bytes: usize| {
        let text = format!("{{\"annotations\": {{\"a\": \"{}\"}}}}", "x".repeat(bytes));
        any(json::SPEC, text.as_bytes())
    };
    let over = create(&d, container("over", huge(17 << 20)))
        .await
        .expect_err("over the limit");
    assert!(
        matches!(over.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{over:?}"
    );
    let all = async {
        for round in 0..4 {
            let creates = (0..3).map(|n| create(&d, container(&format!("h{round}-{n}"), huge(15 << 20))));
            let [a, b, c] = creates
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_else(|_| panic!("three"));
            let (a, b, c) = tokio::join!(a, b, c);
            for made in [a, b, c] {
                assert_eq!(made.expect("created").spec, Some(huge(15 << 20)), "to the byte");
            }
            serves(&d).await;
        }
    };
    let (grown, ()) = growth(&d, all).await;
    println!("grown by {} MiB", grown / MIB);
    assert!(grown < 400 * MIB, "{} MiB", grown / MIB);
    // Nothing runs of it: a container without a process is none.
    let refused = task(&d, "h0-0", None).await.expect_err("no container");
    assert_eq!(refused.code(), Code::Unknown, "{refused:?}");
}

#[tokio::test]
async fn filters_of_bad_syntax_and_bombs() {
    let d = Daemon::start(Runtime::Embedded).await;
    create(&d, container("a", any(json::SPEC, b"{}")))
        .await
        .expect("created");
    let list = async |filters: Vec<String>| -> Vec<(&'static str, Result<usize, Status>)> {
        let f = || filters.clone();
        let containers = ContainersClient::new(d.channel())
            .list(moby(ListContainersRequest { filters: f() }))
            .await;
        let images = ImagesClient::new(d.channel())
            .list(moby(ListImagesRequest { filters: f() }))
            .await;
        let leases = LeasesClient::new(d.channel())
            .list(moby(ListRequest { filters: f() }))
            .await;
        let metrics = TasksClient::new(d.channel())
            .metrics(moby(MetricsRequest { filters: f() }))
            .await;
        let content = ContentClient::new(d.channel())
            .list(moby(ListContentRequest { filters: f() }))
            .await;
        let events = EventsClient::new(d.channel())
            .subscribe(SubscribeRequest { filters: f() })
            .await;
        vec![
            (
                "containers",
                containers.map(|answer| answer.into_inner().containers.len()),
            ),
            ("images", images.map(|answer| answer.into_inner().images.len())),
            ("leases", leases.map(|answer| answer.into_inner().leases.len())),
            ("metrics", metrics.map(|answer| answer.into_inner().metrics.len())),
            ("content", content.map(|_| 0)),
            ("events", events.map(|_| 0)),
        ]
    };
    let wrong = [
        vec!["id=x".to_owned()],
        vec!["id==a,".to_owned()],
        vec!["id==\"a".to_owned()],
        vec!["id==a".to_owned(), "=".to_owned()],
        vec!["x".repeat(65 << 10)],
        vec!["id==a".to_owned(); 1025],
        vec!["id~=/a/".to_owned(); 33],
        vec![format!("id=={}", "a".repeat(60 << 10)); 20],
    ];
    for filters in wrong {
        for (service, answer) in list(filters.clone()).await {
            let refused = answer.expect_err(service);
            assert_eq!(
                refused.code(),
                Code::InvalidArgument,
                "{service} {:.60}: {refused:?}",
                filters[0]
            );
        }
    }
    // Expressions that are none or would take all memory fit nothing; those that would take for ever elsewhere do not here.
    let bombs = [
        "id~=/(((a{1000}){1000}){1000}){1000}/".to_owned(),
        "id~=/[/".to_owned(),
        "id~=/^(\\w{500}|\\pL{500})+$/".to_owned(),
        format!("id~=/{}a/", "(a*)*".repeat(2000)),
        format!("labels.{}b==c", "\"\".".repeat(1000)),
    ];
    let all = async {
        for bomb in bombs {
            for (service, answer) in list(vec![bomb.clone(); 4]).await {
                assert!(
                    matches!(answer, Ok(0)) || service == "containers" && matches!(answer, Ok(1)),
                    "{service} {bomb:.60}: {answer:?}"
                );
            }
            serves(&d).await;
        }
    };
    let (grown, ()) = growth(&d, all).await;
    println!("grown by {} MiB", grown / MIB);
    assert!(grown < 200 * MIB, "{} MiB", grown / MIB);
}

/// Clients that ask for much and read nothing.
#[tokio::test]
#[ignore = "takes a minute; ./dev test --full runs it"]
async fn clients_that_stop_reading() {
    const BLOB: usize = 32 << 20;
    let d = Daemon::start(Runtime::Embedded).await;
    let piece = vec![7_u8; 4 << 20];
    let pieces = BLOB / piece.len();
    let parts = (0..pieces).map(move |n| WriteContentRequest {
        action: if n + 1 == pieces {
            WriteAction::Commit
        } else {
            WriteAction::Write
        }
        .into(),
        r#ref: "big".into(),
        offset: (n * piece.len()) as i64,
        data: piece.clone().into(),
        ..Default::default()
    });
    let mut content = ContentClient::new(d.channel());
    let mut answers = content
        .write(moby(tokio_stream::iter(parts)))
        .await
        .expect("a write")
        .into_inner();
    let mut digest = String::new();
    while let Some(answer) = within("a piece", LIMIT, answers.message()).await.expect("written") {
        digest = answer.digest;
    }
    let stuck = async {
        let mut kept = Vec::new();
        for _ in 0..50 {
            let mut content = ContentClient::new(d.channel());
            let read = ReadContentRequest {
                digest: digest.clone(),
                ..Default::default()
            };
            kept.push(content.read(moby(read)).await.expect("a stream"));
        }
        let deaf = EventsClient::new(d.channel())
            .subscribe(SubscribeRequest::default())
            .await;
        let mut deaf = deaf.expect("subscribed").into_inner();
        let hears = EventsClient::new(d.channel())
            .subscribe(SubscribeRequest::default())
            .await;
        let mut hears = hears.expect("subscribed").into_inner();
        let mut events = EventsClient::new(d.channel());
        const EVENTS: usize = 12_000;
        for n in 0..EVENTS {
            let event = PublishRequest {
                topic: format!("/test/{n}"),
                event: Some(any("x.y", &[0; 512])),
            };
            events.publish(moby(event)).await.expect("published");
            let heard = within("an event", LIMIT, hears.message())
                .await
                .expect("alive")
                .expect("one");
            assert_eq!(heard.topic, format!("/test/{n}"), "in order, none left out");
        }
        serves(&d).await;
        // It is told that it missed some; what it had not read before is still there.
        let end = loop {
            match within("an event", LIMIT, deaf.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a stream that was cut looks complete"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
        kept.len()
    };
    let (grown, streams) = growth(&d, stuck).await;
    println!(
        "grown by {} MiB with {streams} streams of {} MiB",
        grown / MIB,
        BLOB as u64 / MIB
    );
    assert!(grown < 500 * MIB, "{} MiB", grown / MIB);
    serves(&d).await;
}

#[tokio::test]
#[ignore = "takes a minute; ./dev test --full runs it"]
async fn five_thousand_idle_streams() {
    let d = Daemon::start(Runtime::Embedded).await;
    let idle = async {
        let channel = d.channel();
        let mut streams = Vec::new();
        for _ in 0..5000 {
            let filters = vec!["namespace==moby,topic~=|^/tasks/|".to_owned()];
            let mut events = EventsClient::new(channel.clone());
            let stream = events.subscribe(SubscribeRequest { filters });
            streams.push(within("a stream", LIMIT, stream).await.expect("subscribed"));
        }
        streams
    };
    let (grown, streams) = growth(&d, idle).await;
    println!("grown by {} MiB", grown / MIB);
    assert!(grown < 256 * MIB, "{} MiB for {} streams", grown / MIB, streams.len());
    let begin = Instant::now();
    d.run(&d.sh("quick", "exit 3")).await;
    assert_eq!(d.wait("quick").await.code, 3);
    println!("a start among them took {:?}", begin.elapsed());
    serves(&d).await;
    drop(streams);
    serves(&d).await;
}
