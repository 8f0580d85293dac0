//! Who may use whom: the crate table of ARCHITECTURE.md as data, held against what cargo says.
//!
//! Two questions are asked of every crate of the workspace. Which crates does its manifest name (normal and build
//! dependencies; tests may use what they like)? And what is linked into it in the end? The second is asked of `cargo tree`
//! for that one package: `cargo metadata` unites the features of the whole workspace and would see tonic inside the shim.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// One row of the table.
struct Row {
    name: &'static str,
    /// Which of our own crates it may name.
    own: &'static [&'static str],
    /// Which foreign crates it may name; `None` = any.
    foreign: Option<&'static [&'static str]>,
    /// What must not be linked into it, however deep.
    never: &'static [&'static str],
}

/// A crate that is not in the table is a complaint, so that nobody adds a layer without saying where it lies.
const TABLE: &[Row] = &[
    Row {
        name: "berth-core",
        own: &[],
        foreign: Some(&["thiserror"]),
        never: &["serde", "prost", "tokio", "tonic", "time", "chrono", "libc", "rustix"],
    },
    Row {
        name: "berth-sys",
        own: &[],
        foreign: Some(&["rustix", "libc", "thiserror"]),
        never: &["tokio"],
    },
    Row {
        name: "berth-wire",
        own: &[],
        foreign: Some(&[
            "bytes",
            "prost",
            "prost-types",
            "thiserror",
            "tonic",
            "tonic-prost",
            "protox",
            "tonic-prost-build",
        ]),
        never: &["tokio", "tonic", "rustix", "libc"],
    },
    Row {
        name: "berth-record",
        own: &["berth-core", "berth-sys"],
        foreign: None,
        never: &["tokio", "tonic", "prost"],
    },
    Row {
        name: "berth-doctor",
        own: &["berth-core", "berth-sys", "berth-record"],
        foreign: None,
        never: &["tokio", "tonic", "prost"],
    },
    Row {
        name: "berth-meta",
        own: &["berth-core"],
        foreign: None,
        never: &["tonic", "prost"],
    },
    Row {
        name: "berth-content",
        own: &["berth-core"],
        foreign: None,
        never: &["tokio", "tonic", "prost", "rusqlite"],
    },
    Row {
        name: "berth-oci",
        own: &["berth-sys"],
        foreign: None,
        never: &["tokio", "tonic", "berth-core", "berth-wire"],
    },
    Row {
        name: "berth-runtime",
        own: &["berth-core", "berth-sys", "berth-oci"],
        foreign: None,
        never: &["tokio", "tonic", "berth-wire"],
    },
    Row {
        name: "berth-shim",
        own: &["berth-core", "berth-sys", "berth-wire", "berth-record", "berth-runtime"],
        foreign: None,
        never: &["tokio", "tonic", "rusqlite", "berth-supervisor", "berth-api"],
    },
    Row {
        name: "berth-supervisor",
        own: &["berth-core", "berth-sys", "berth-wire", "berth-record"],
        foreign: None,
        never: &["tonic", "berth-runtime", "berth-oci"],
    },
    Row {
        name: "berth-api",
        own: &[
            "berth-core",
            "berth-wire",
            "berth-supervisor",
            "berth-meta",
            "berth-content",
        ],
        foreign: None,
        never: &["berth-runtime"],
    },
    Row {
        name: "berthd",
        own: &[
            "berth-api",
            "berth-supervisor",
            "berth-record",
            "berth-doctor",
            "berth-core",
            "berth-meta",
            "berth-content",
        ],
        foreign: None,
        never: &["berth-runtime", "berth-shim"],
    },
    Row {
        name: "berth-client",
        own: &["berth-wire"],
        foreign: None,
        never: &["berth-supervisor", "berth-record", "berth-sys", "berth-runtime"],
    },
    Row {
        name: "berth",
        own: &["berth-core", "berth-wire", "berth-client"],
        foreign: None,
        never: &["berth-supervisor", "berth-record", "berth-sys", "berth-runtime"],
    },
    Row {
        name: "berth-oci-cli",
        own: &["berth-oci"],
        foreign: None,
        never: &["tokio", "tonic"],
    },
    // Both are clients: they see the programs from outside.
    Row {
        name: "berth-e2e",
        own: &["berth-wire", "berth-client"],
        foreign: None,
        never: &["berth-supervisor", "berth-runtime"],
    },
    Row {
        name: "berth-faults",
        own: &["berth-e2e"],
        foreign: None,
        never: &["berth-supervisor", "berth-runtime"],
    },
    // The machine around the supervisor, made of values.
    Row {
        name: "berth-simulation",
        own: &[
            "berth-core",
            "berth-sys",
            "berth-wire",
            "berth-record",
            "berth-supervisor",
        ],
        foreign: None,
        never: &["tonic", "berth-runtime", "berth-oci"],
    },
    Row {
        name: "berth-bench",
        own: &["berth-wire"],
        foreign: None,
        never: &["berth-supervisor", "berth-runtime"],
    },
    // What every runtime does, without what makes it one; the library compiles its filter.
    Row {
        name: "berth-floor",
        own: &["berth-sys", "berth-oci"],
        foreign: Some(&["serde_json"]),
        never: &["tokio"],
    },
    // The probe asks the kernel itself; the runtimes are seen from outside.
    Row {
        name: "berth-conformance",
        own: &["berth-sys"],
        foreign: None,
        never: &["tokio", "berth-oci"],
    },
    Row {
        name: "berth-fuzz",
        own: &["berth-api", "berth-oci"],
        foreign: Some(&["serde_json"]),
        never: &[],
    },
    Row {
        name: "xtask",
        own: &[],
        foreign: None,
        never: &["tokio"],
    },
];

/// What cargo says about one crate of the workspace.
#[derive(Debug, Clone, Default)]
struct Package {
    /// Names in its manifest, tests' left out.
    named: BTreeSet<String>,
    /// Everything linked into it.
    linked: BTreeSet<String>,
}

pub fn run(root: &Path) -> Result<Vec<String>, String> {
    Ok(check(TABLE, &read(root)?))
}

fn check(table: &[Row], packages: &BTreeMap<String, Package>) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in packages
        .keys()
        .filter(|name| !table.iter().any(|row| row.name == **name))
    {
        complaints.push(format!("{name} has no row in the crate table (xtask/src/layers.rs)"));
    }
    for row in table {
        let Some(package) = packages.get(row.name) else {
            complaints.push(format!("{} is in the crate table and not in the workspace", row.name));
            continue;
        };
        for named in &package.named {
            if packages.contains_key(named) {
                if !row.own.contains(&named.as_str()) {
                    complaints.push(format!("{} may not use {named}", row.name));
                }
            } else if row.foreign.is_some_and(|allowed| !allowed.contains(&named.as_str())) {
                complaints.push(format!(
                    "{} may not use {named}: its foreign crates are a closed list",
                    row.name
                ));
            }
        }
        for banned in row.never.iter().filter(|banned| package.linked.contains(**banned)) {
            complaints.push(format!(
                "{banned} is linked into {0}: see `cargo tree -p {0} -i {banned}`",
                row.name
            ));
        }
    }
    complaints
}

fn read(root: &Path) -> Result<BTreeMap<String, Package>, String> {
    let metadata = cargo(root, &["metadata", "--format-version=1", "--no-deps", "--locked"])?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata is not JSON: {error}"))?;
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let named = package["dependencies"].as_array().into_iter().flatten();
        let named = named.filter(|dependency| dependency["kind"] != "dev");
        let named = named
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_owned)
            .collect();
        let tree = cargo(
            root,
            &[
                "tree",
                "--locked",
                "--package",
                &name,
                "--edges=normal,no-proc-macro",
                "--prefix=none",
                "--format={p}",
            ],
        )?;
        let linked = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned);
        let linked = linked.filter(|linked| *linked != name).collect();
        packages.insert(name, Package { named, linked });
    }
    Ok(packages)
}

fn cargo(root: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root).output();
    let output = output.map_err(|error| format!("cargo {}: {error}", args[0]))?;
    if !output.status.success() {
        return Err(format!(
            "cargo {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod test {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A workspace in which every crate uses all that it may.
    fn clean() -> BTreeMap<String, Package> {
        let package = |row: &Row| Package {
            named: set(row.own)
                .union(&set(row.foreign.unwrap_or(&["serde_json"])))
                .cloned()
                .collect(),
            linked: set(row.own),
        };
        TABLE.iter().map(|row| (row.name.to_owned(), package(row))).collect()
    }

    #[test]
    fn the_table_agrees_with_itself() {
        assert_eq!(check(TABLE, &clean()), Vec::<String>::new());
    }

    #[test]
    fn planted_violations_are_found() {
        let mut packages = clean();
        packages.get_mut("berth-core").unwrap().named.insert("tokio".into());
        packages.get_mut("berth-core").unwrap().linked.insert("tokio".into());
        packages.get_mut("berth-shim").unwrap().linked.insert("tonic".into());
        packages
            .get_mut("berth-api")
            .unwrap()
            .named
            .insert("berth-record".into());
        packages.remove("berth-oci");
        packages.insert("berth-utils".into(), Package::default());
        assert_eq!(
            check(TABLE, &packages),
            [
                "berth-utils has no row in the crate table (xtask/src/layers.rs)",
                "berth-core may not use tokio: its foreign crates are a closed list",
                "tokio is linked into berth-core: see `cargo tree -p berth-core -i tokio`",
                "berth-oci is in the crate table and not in the workspace",
                "tonic is linked into berth-shim: see `cargo tree -p berth-shim -i tonic`",
                "berth-api may not use berth-record",
                // Only as a consequence: the removed crate is no longer one of ours.
                "berth-floor may not use berth-oci: its foreign crates are a closed list",
                "berth-fuzz may not use berth-oci: its foreign crates are a closed list",
            ]
        );
    }

    #[test]
    fn cargo_is_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let packages = read(root).unwrap();
        assert!(packages["berth-core"].named.contains("thiserror"));
        assert!(
            !packages["berth-core"].named.contains("proptest"),
            "dev-dependencies are free"
        );
        assert!(packages["berthd"].linked.contains("tokio"));
    }
}
