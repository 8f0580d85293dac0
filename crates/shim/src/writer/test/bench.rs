//! Prints how fast output gets through encoders, ring and writer.

use super::*;

/// Not a test of speed: prints it. `cargo test --release -p berth-shim writer -- --ignored --nocapture bench`
#[test]
#[ignore = "prints figures"]
fn bench() {
    for (name, line) in [
        ("64 KiB reads of 100-byte lines", 100),
        ("of 1,000-byte lines", 1000),
        ("of no lines", 1 << 30),
    ] {
        for format in [Format::Plain, Format::Cri, Format::Json] {
            let folder = Folder::new();
            let block: Vec<u8> = (0..64 << 10)
                .map(|at| if at % line == line - 1 { b'\n' } else { b'x' })
                .collect();
            let total: u64 = 1 << 30;
            let mut out = Vec::with_capacity(4 << 20);
            let began = Instant::now();
            let mut encoded = 0;
            for _ in 0..total / block.len() as u64 {
                out.clear();
                berth_record::log::encode(format, &mut out, usize::MAX, Stream::Stdout, 1, &block);
                encoded += out.len() as u64;
            }
            let encode = total as f64 / began.elapsed().as_secs_f64() / 1e9;
            let mut bench = Bench::new(Options {
                max_size: 64 << 20,
                max_files: 2,
                ..options(Path::new("/dev/shm"), format)
            });
            let _ = &folder;
            let writer = bench.writer.expect("writer");
            let (mine, its) = (
                process::stat(process::getpid()).expect("stat"),
                process::stat(writer).expect("stat"),
            );
            let began = Instant::now();
            for _ in 0..total / block.len() as u64 {
                for piece in block.chunks(32 << 10) {
                    bench.put(Stream::Stdout, piece);
                }
            }
            until("an empty ring", || bench.ring.shared.progress().tail == bench.ring.head);
            let wall = began.elapsed().as_secs_f64();
            let ticks = process::stat(writer).expect("stat").cpu_ticks - its.cpu_ticks;
            let shim = process::stat(process::getpid()).expect("stat").cpu_ticks - mine.cpu_ticks;
            bench.end();
            let per = |ticks: u64| total as f64 / 1e9 / (ticks.max(1) as f64 / 100.0);
            println!(
                "{format:?} {name}: encode {encode:.2} GB/s ({encoded} bytes), through the ring {:.2} GB/s wall, {:.2} GB/s per core of the writer, {:.2} of container + shim",
                total as f64 / wall / 1e9,
                per(ticks),
                per(shim)
            );
            let _ = fs::remove_dir_all("/dev/shm/logs");
        }
    }
}
