//! The daemon's death at a fail point: a panic that carries `Crash`, after which the runtime is dropped before another task runs.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Once};

use tokio::sync::Notify;

struct Crash;

thread_local! {
    /// Fail points until the crash; 0 = none is planned.
    static PLANNED: Cell<u8> = const { Cell::new(0) };
    static CRASHED: RefCell<Option<Arc<Notify>>> = const { RefCell::new(None) };
}

/// Once a process: every fail point counts down to the crash of its thread's simulation.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for name in berth_supervisor::FAIL_POINTS.iter().flat_map(|(_, names)| *names) {
            // Without fail points in the build there is nothing to hook into: crashes happen at awaits alone.
            let _ = fail::cfg_callback(*name, reached);
        }
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload().is::<Crash>() {
                usual(panic);
            }
        }));
    });
}

fn reached() {
    let left = PLANNED.get();
    if left == 0 {
        return;
    }
    PLANNED.set(left - 1);
    if left == 1 {
        CRASHED.with_borrow(|crashed| {
            if let Some(crashed) = crashed {
                crashed.notify_one();
            }
        });
        std::panic::panic_any(Crash);
    }
}

/// At the nth fail point from now; 0 takes it back.
pub fn plan(stage: u8) {
    PLANNED.set(stage);
}

/// Notified at the crash.
pub fn watch() -> Arc<Notify> {
    let notify = Arc::new(Notify::new());
    CRASHED.set(Some(notify.clone()));
    PLANNED.set(0);
    notify
}
