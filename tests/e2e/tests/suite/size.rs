//! What a container costs beside itself.
use berth_e2e::proc::{self, pss_kib};
use berth_e2e::{Daemon, Runtime, fifo, on_all, until};

on_all!(shim_is_small);

/// With FIFO stdio: one process of one thread, at most 500 KiB of PSS a container, the template's share counted.
pub async fn shim_is_small(rt: Runtime) {
    const N: u64 = 10;
    let d = Daemon::start(rt).await;
    let mut readers = Vec::new();
    let mut supervisors = proc::children(d.pid());
    for i in 0..N {
        let id = format!("s{i}");
        let f = fifo::Fifos::new(&d.dir, &id);
        readers.push((fifo::reader(&f.stdout), fifo::reader(&f.stderr)));
        let init = d.run(&d.sleeper(&id).stdio(f.stdio())).await;
        let shim = d.get(&id).await.shim_pid;
        assert_eq!(proc::status(shim, "Threads").as_deref(), Some("1"));
        // The creator has told that it is done and may still be ending.
        until("nothing is beside the shim", || {
            proc::children(shim).into_iter().all(|p| p == init).then_some(())
        })
        .await;
        supervisors.push(shim);
    }
    supervisors.sort_unstable();
    supervisors.dedup();
    let sum: u64 = supervisors.iter().map(|p| pss_kib(*p).expect("smaps_rollup")).sum();
    println!(
        "{} KiB of PSS a container in {} processes for {N} containers",
        sum / N,
        supervisors.len()
    );
    // What was not optimized has more code to touch; the promise is the release's.
    let release = berth_e2e::daemon::binary("berth-shim")
        .components()
        .any(|c| c.as_os_str() == "release");
    let limit = if release { 500 } else { 700 };
    assert!(sum / N <= limit, "{} KiB", sum / N);
}
