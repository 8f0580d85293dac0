//! Runs a bundle and shows what it wrote: run SOCKET BUNDLE.
use berth_client::{Client, v1::*};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let daemon = Client::connect(arguments[1].as_ref(), "default").await?;
    let (id, bundle) = ("rust".to_owned(), arguments[2].clone());
    let container = ContainerSpec {
        id: id.clone(),
        bundle,
        ..Default::default()
    };
    daemon
        .run(RunRequest {
            container: Some(container),
            ..Default::default()
        })
        .await?;
    let ended = daemon
        .wait(WaitRequest {
            id: id.clone(),
            ..Default::default()
        })
        .await?;
    let mut logs = daemon.logs(LogsRequest {
        id: id.clone(),
        ..Default::default()
    });
    while let Some(entry) = logs.next().await? {
        print!("{}", String::from_utf8_lossy(&entry.data));
    }
    daemon
        .delete(DeleteRequest {
            id,
            ..Default::default()
        })
        .await?;
    std::process::exit(ended.exit.map_or(1, |exit| exit.code as i32))
}
