//! A berthd of our own: its configuration and how it is started.

use std::path::Path;

/// Everything that is not the default, and why it is not: the runtime is the one that both sides use. Berth's own has no path.
pub fn config(runtime: &str, path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return format!("[runtime]\ndefault = {runtime:?}\n");
    }
    format!("[runtime]\ndefault = {runtime:?}\n\n[runtimes.{runtime}]\npath = {path:?}\n")
}

/// The arguments that move everything into `work`.
pub fn arguments(work: &Path, socket: &Path) -> Vec<String> {
    let path = |name: &str| work.join(name).to_string_lossy().into_owned();
    [
        ("--address", socket.to_string_lossy().into_owned()),
        ("--state", path("state")),
        ("--root", path("root")),
        ("--config", path("config.toml")),
        ("--log-level", "warn".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}
