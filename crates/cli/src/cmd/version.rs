//! `berth version`: ours, and berthd's if it runs.

use berth_wire::v1::VersionResponse;

use super::Context;
use crate::error::{CliError, Result};
use crate::json;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub async fn version(context: &Context) -> Result<u8> {
    let daemon = async {
        let client = context.client().await?;
        client.version().await.map_err(CliError::from)
    };
    match daemon.await {
        Ok(daemon) if context.out.json => context.out.document(&json::version(VERSION, &daemon)).map(|()| 0),
        Ok(daemon) => context.out.line(&text(&daemon)).map(|()| 0),
        Err(error) => {
            // Our own version is known without a daemon, and often wanted because there is none.
            if !context.out.json {
                context.out.line(&format!("berth   {VERSION}"))?;
            }
            Err(error)
        }
    }
}

fn text(daemon: &VersionResponse) -> String {
    let revision = if daemon.revision.is_empty() {
        String::new()
    } else {
        format!(" ({})", daemon.revision)
    };
    let mut text = format!("berth   {VERSION}\nberthd  {}{revision}", daemon.version);
    for runtime in &daemon.runtimes {
        // The embedded one has no path.
        let path = Some(runtime.path.as_str()).filter(|path| !path.is_empty());
        let words: Vec<&str> = path.into_iter().chain(runtime.default.then_some("default")).collect();
        text += &format!("\nruntime {} {}", runtime.name, runtime.version);
        if !words.is_empty() {
            text += &format!(" ({})", words.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod test {
    use super::*;
    use berth_wire::v1::RuntimeInfo;

    #[test]
    fn versions_are_listed() {
        let runtime = RuntimeInfo {
            name: "runc".into(),
            path: "/usr/sbin/runc".into(),
            version: "1.1.5".into(),
            default: false,
        };
        let embedded = RuntimeInfo {
            name: "embedded".into(),
            version: "0.1.0".into(),
            default: true,
            ..Default::default()
        };
        let daemon = VersionResponse {
            version: "0.1.0".into(),
            revision: "abc".into(),
            api_minor: 0,
            runtimes: vec![embedded, runtime],
            ..Default::default()
        };
        assert_eq!(
            text(&daemon),
            format!(
                "berth   {VERSION}\nberthd  0.1.0 (abc)\nruntime embedded 0.1.0 (default)\nruntime runc 1.1.5 (/usr/sbin/runc)"
            )
        );
    }
}
