//! Container records in memory. They are lost when the daemon ends; the tasks are not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_core::ContainerKey;
use berth_wire::containerd::services::containers::v1::Container;

#[derive(Default)]
pub struct Records(Mutex<BTreeMap<ContainerKey, Container>>);

impl Records {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerKey, Container>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
