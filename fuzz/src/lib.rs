//! Fuzz targets: text from outside must be refused or understood, and never crash, hang or fill the memory.
//!
//! The driver runs on stable Rust: it mutates a corpus of honest texts, byte by byte and as JSON, by a seed that it prints. It has no
//! feedback from coverage; what it finds goes into `corpus/` and is replayed by every test run.
#![forbid(unsafe_code)]

pub mod mutate;

/// Takes any bytes; what it answers does not matter.
pub type Target = fn(&[u8]);

/// Name and target; the corpus is in `corpus/NAME`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", |text| drop(berth_oci::rehearse_config(text))),
    ("process", |text| drop(berth_oci::rehearse_process(text))),
    ("filter", berth_api::rehearse_filters),
    ("request", berth_api::rehearse_request),
];

/// The corpus of a target, by name of its files.
///
/// # Panics
/// If there is none.
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .flatten()
        .map(|entry| {
            let text = std::fs::read(entry.path()).expect("a file of the corpus");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    all.sort();
    all
}
