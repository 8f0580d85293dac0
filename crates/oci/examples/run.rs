//! Runs a bundle in the foreground and ends with its exit code: `cargo run -p berth-oci --example run -- BUNDLE [ID]`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

fn main() {
    let mut args = std::env::args().skip(1);
    let bundle = PathBuf::from(args.next().expect("usage: run BUNDLE [ID]"));
    let id = args.next().unwrap_or_else(|| "example".to_owned());
    match run(&bundle, &id) {
        Ok(code) => std::process::exit(code),
        Err(error) => {
            eprintln!("run: {error}");
            std::process::exit(i32::from(error.exit_code()))
        }
    }
}

fn run(bundle: &Path, id: &str) -> Result<i32, berth_oci::OciError> {
    let root = Path::new("/run/berth-oci-example");
    let (spec, text) = berth_oci::load(bundle)?;
    let began = std::time::Instant::now();
    let container = berth_oci::create(berth_oci::CreateOptions {
        root,
        id,
        bundle,
        spec: &spec,
        spec_text: &text,
        stdio: None,
        console: None,
        pivot: true,
        new_keyring: true,
        preserve_fds: 0,
        sibling: false,
    })?;
    let created = began.elapsed();
    container.start()?;
    eprintln!("created in {created:?}, started in {:?}", began.elapsed());
    let ended = berth_sys::process::wait(container.pid).ok().flatten();
    let began = std::time::Instant::now();
    berth_oci::delete(root, id, false)?;
    eprintln!("deleted in {:?}", began.elapsed());
    Ok(ended.map_or(255, |ended| ended.code() as i32))
}
