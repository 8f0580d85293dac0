//! Files and flags become a configuration, or a complaint that names the key and its line.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_document(&Document::parse(text, "t.toml")?)
}

#[test]
fn defaults_and_derived_address() {
    let config = parse("").expect("valid");
    assert_eq!(config.address, Path::new("/run/berth/berthd.sock"));
    assert_eq!((config.start_concurrency, config.shim_oom_score_adj), (10, -998));
    assert_eq!(config.default_runtime, None);
    assert!(config.shim_template && !config.container_log_drop);
    let moved = parse("[daemon]\nstate = \"/run/other\"").expect("valid");
    assert_eq!(moved.address, Path::new("/run/other/berthd.sock"));
}

#[test]
fn flags_win_over_the_file() {
    let document = Document::parse("[start]\nconcurrency = 3", "t").expect("valid");
    let flags = Flags {
        start_concurrency: Some(7),
        state: Some("/s".into()),
        ..Flags::default()
    };
    let config = Config::with_flags(document, &flags).expect("valid");
    assert_eq!(config.start_concurrency, 7);
    assert_eq!(config.address, Path::new("/s/berthd.sock"));
}

#[test]
fn every_number_fits_its_type_at_both_ends() {
    for extreme in [0, 1] {
        for key in KEYS {
            let keys::Kind::Number { min, max } = key.kind else {
                continue;
            };
            let value = [min, max][extreme];
            let path = format!("{}.{}", key.section, key.name);
            let mut document = Document::defaults();
            document.values.insert(path.clone(), Value::Number(value));
            let config = Config::from_document(&document).expect("valid");
            if value != 0 {
                assert!(
                    format!("{config:?}").contains(&format!(": {value}")),
                    "{path} = {value} was lost"
                );
            }
        }
    }
}

#[test]
fn addresses_are_checked() {
    let long = format!("[daemon]\naddress = \"/{}\"", "x".repeat(120));
    assert!(
        parse(&long)
            .expect_err("too long")
            .to_string()
            .contains("at most 107 bytes")
    );
    assert!(parse("[daemon]\nmetrics_address = \"0.0.0.0:1\"").is_err());
    let config = parse("[daemon]\nmetrics_address = \"unix:/run/m.sock\"").expect("valid");
    assert_eq!(config.metrics_address, Some(MetricsAddress::Unix("/run/m.sock".into())));
    assert!(parse("[daemon]\nmetrics_address = \"[::1]:9180\"").is_ok());
    for wrong in ["loud=very", "loud", "info,debg", ""] {
        assert!(parse(&format!("[daemon]\nlog_level = \"{wrong}\"")).is_err(), "{wrong}");
    }
    for right in ["debug", "off", "info,berth_supervisor=debug"] {
        assert!(parse(&format!("[daemon]\nlog_level = \"{right}\"")).is_ok(), "{right}");
    }
}

#[test]
fn reload_takes_what_it_can() {
    let old = parse("").expect("valid");
    let newer = parse("[daemon]\nstate = \"/x\"\naddress = \"/run/berth/berthd.sock\"\n[start]\nconcurrency = 4")
        .expect("valid");
    let (merged, waiting) = old.reloaded(&newer);
    assert_eq!(merged.start_concurrency, 4);
    assert_eq!(merged.state, old.state);
    assert_eq!(waiting, ["daemon.state"]);
}

#[test]
fn every_restart_key_is_kept_over_a_reload() {
    let old = parse("").expect("valid");
    for key in KEYS.iter().filter(|k| k.applies == Applies::Restart) {
        let path = format!("{}.{}", key.section, key.name);
        let other = match key.kind {
            keys::Kind::Flag => Value::Flag(key.default != "true"),
            keys::Kind::Number { min, .. } => Value::Number(min.max(1)),
            keys::Kind::Choice(words) => Value::Text(words[words.len() - 1].into()),
            _ if key.name == "metrics_address" => Value::Text("unix:/m".into()),
            _ => Value::Text("/other".into()),
        };
        let mut document = Document::defaults();
        document.values.insert(path.clone(), other);
        let newer = Config::from_document(&document).expect("valid");
        let (merged, waiting) = old.reloaded(&newer);
        // worker_threads and keep start from values that the loop may hit; what counts is that nothing leaks.
        assert_eq!(merged, old, "{path} must wait for a restart");
        assert!(
            newer == old || waiting.contains(&path.as_str()),
            "{path} is not reported"
        );
    }
}

#[test]
fn a_default_runtime_must_be_known_and_complaints_have_lines() {
    let folder = std::env::temp_dir().join(format!("berth-config.{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("config.toml");
    let load = |text: &str| {
        std::fs::write(&file, text).expect("file");
        let flags = Flags {
            config: Some(file.clone()),
            ..Flags::default()
        };
        Config::load(&flags).and_then(|config| config.missing(&flags))
    };
    let error = load("[daemon]\n\n[runtime]\ndefault = \"rnc\"")
        .expect_err("unknown")
        .to_string();
    assert!(
        error.starts_with(&format!("{}:4: runtime.default: \"rnc\" is not", file.display())),
        "{error}"
    );
    let error = load("[daemon]\nlog_level = \"loud\"")
        .expect_err("no level")
        .to_string();
    assert!(error.contains("config.toml:2: daemon.log_level"), "{error}");
    assert!(load("[runtime]\ndefault = \"crun\"").expect("good").is_empty());
    let warned = load("[runtimes.\"my.own\"]\npath = \"/no/such\"\n[runtime]\ndefault = \"my.own\"").expect("good");
    assert_eq!(warned.len(), 1);
    assert!(
        warned[0].contains("config.toml:2: runtimes.my.own.path: /no/such: No such file"),
        "{warned:?}"
    );
    std::fs::remove_dir_all(&folder).expect("remove");
}

#[test]
fn files_that_are_not_there() {
    let missing = Path::new("/nonexistent/berth.toml");
    assert!(
        read(Some(missing))
            .expect_err("named")
            .to_string()
            .contains("/nonexistent/berth.toml")
    );
}
