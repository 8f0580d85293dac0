//! What the shim was told of its container, once, by Create.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use berth_wire::shim::CreateRequest;

use crate::cgroup::Place;
use crate::creator::Setting;
use crate::error::Error;

#[derive(Debug)]
pub struct Container {
    pub incarnation: String,
    pub setting: Setting,
    pub drain_timeout: Duration,
    /// Nowhere until its init is made.
    pub cgroup: Place,
    /// Only to remove what an earlier shim left.
    pub cleanup_only: bool,
}

impl Container {
    pub fn new(request: &CreateRequest, folder: &Rc<OwnedFd>) -> Result<Container, Error> {
        let invalid = |problem: &str| Error::Invalid {
            operation: "create",
            problem: problem.into(),
        };
        if request.id.is_empty() || !request.bundle.starts_with('/') {
            return Err(invalid("an id and an absolute path of a bundle are needed"));
        }
        let driver = request.driver.clone().ok_or_else(|| invalid("no driver"))?;
        let millis = |given: u32, default: u64| match given {
            0 => Duration::from_millis(default),
            _ => Duration::from_millis(given.into()),
        };
        Ok(Container {
            incarnation: request.incarnation.clone(),
            setting: Setting {
                namespace: request.namespace.clone(),
                id: request.id.clone(),
                bundle: request.bundle.clone().into(),
                driver,
                timeout: millis(request.runtime_timeout_ms, 30_000),
                folder: folder.clone(),
                rootfs: request.rootfs.clone(),
                init: Some(request.init.clone())
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from),
            },
            drain_timeout: millis(request.drain_timeout_ms, 2_000),
            cgroup: Place::default(),
            cleanup_only: request.cleanup_only,
        })
    }
}
