//! containerd's API: one file a service, all over the same core as our own API.
//!
//! Invariants: what a client put into an `Any` comes back to the byte; a type URL that we send has no prefix. A method that is
//! not here answers UNIMPLEMENTED, and so does a service. Everything lives in a namespace that the request's metadata names
//! (`header`); only Namespaces, Version, Introspection, Subscribe and Forward do without.

mod containers;
mod content;
mod events;
mod filter;
mod garbage;
mod header;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod store;
mod tasks;
mod time;
pub mod ttrpc;
mod version;

pub use filter::Filter;
pub use tasks::rehearse_request;
pub use version::VERSION;

use std::sync::Arc;

use berth_content::Store;
use berth_meta::Meta;
use berth_supervisor::Supervisor;
use berth_wire::containerd::services as wire;
use tonic::transport::server::Router;

use crate::serve::MAX_MESSAGE;
use crate::stream::Ending;

/// What every service reaches; clones share it.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

pub struct Shared {
    pub supervisor: Supervisor,
    pub events: events::Bus,
    pub ending: Ending,
    pub meta: Meta,
    pub content: Store,
    pub garbage: garbage::Collector,
}

impl Context {
    pub fn new(supervisor: Supervisor, meta: Meta, content: Store, ending: Ending) -> Self {
        Context(Arc::new(Shared {
            events: events::Bus::new(supervisor.clone()),
            supervisor,
            garbage: garbage::Collector::start(meta.clone(), content.clone(), ending.clone()),
            ending,
            meta,
            content,
        }))
    }
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Puts every service beside our own.
pub fn mount<L: Clone>(router: Router<L>, context: &Context) -> Router<L> {
    macro_rules! served {
        ($server:path, $service:expr) => {{
            use $server as Server;
            Server::new($service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE)
        }};
    }
    let context = || context.clone();
    router
        .add_service(served!(
            wire::version::v1::version_server::VersionServer,
            version::Version
        ))
        .add_service(served!(
            wire::introspection::v1::introspection_server::IntrospectionServer,
            introspection::Introspection(context())
        ))
        .add_service(served!(
            wire::namespaces::v1::namespaces_server::NamespacesServer,
            namespaces::Namespaces(context())
        ))
        .add_service(served!(
            wire::containers::v1::containers_server::ContainersServer,
            containers::Containers(context())
        ))
        .add_service(served!(
            wire::leases::v1::leases_server::LeasesServer,
            leases::Leases(context())
        ))
        .add_service(served!(
            wire::content::v1::content_server::ContentServer,
            content::Content(context())
        ))
        .add_service(served!(
            wire::images::v1::images_server::ImagesServer,
            images::Images(context())
        ))
        .add_service(served!(
            wire::tasks::v1::tasks_server::TasksServer,
            tasks::Tasks(context())
        ))
        .add_service(served!(
            wire::events::v1::events_server::EventsServer,
            events::Events(context())
        ))
}
