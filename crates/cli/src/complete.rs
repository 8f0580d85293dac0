//! Completion while a person types: the shell runs `berth` itself, so that ids are those of this moment.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use berth_client::Client;
use berth_wire::v1::ListRequest;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::json;

/// A person waits for it.
const LIMIT: Duration = Duration::from_millis(500);

/// Completes ids of containers.
pub fn ids() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates)
}

fn candidates(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(beginning) = current.to_str() else {
        return Vec::new();
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let words: Vec<String> = std::env::args().collect();
    // No daemon, no candidates: there is nobody to tell.
    let containers = runtime.block_on(async {
        let listed = tokio::time::timeout(LIMIT, list(&words)).await;
        listed.ok().and_then(Result::ok).unwrap_or_default()
    });
    containers
        .into_iter()
        .filter(|(id, _)| id.starts_with(beginning))
        .map(|(id, state)| CompletionCandidate::new(id).help(Some(state.into())))
        .collect()
}

async fn list(words: &[String]) -> berth_client::Result<Vec<(String, String)>> {
    let given = |names: &[&str], variable: &str, default: &str| {
        option(words, names)
            .or_else(|| std::env::var(variable).ok())
            .unwrap_or_else(|| default.to_owned())
    };
    let address = PathBuf::from(given(&["--address"], "BERTH_ADDRESS", crate::args::ADDRESS));
    let namespace = given(&["--namespace", "-n"], "BERTH_NAMESPACE", "default");
    let containers = Client::connect(&address, &namespace)
        .await?
        .list(ListRequest::default())
        .await?;
    Ok(containers
        .into_iter()
        .map(|container| (container.id.clone(), json::state(container.state())))
        .collect())
}

/// The value of an option among words that are not a whole command yet.
fn option(words: &[String], names: &[&str]) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| {
        names.iter().find_map(|name| match word.strip_prefix(name)? {
            "" => words.get(at + 1).cloned(),
            value => value.strip_prefix('=').map(str::to_owned),
        })
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn options_are_found_in_half_a_command() {
        let words: Vec<String> = ["berth", "-n", "web", "stop", "--address=/s"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(option(&words, &["--namespace", "-n"]).as_deref(), Some("web"));
        assert_eq!(option(&words, &["--address"]).as_deref(), Some("/s"));
        assert_eq!(option(&words, &["--nosuch"]), None);
    }
}
