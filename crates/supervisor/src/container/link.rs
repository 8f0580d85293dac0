//! A container's connection to its shim, numbered: news of an older one says nothing about the present.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_core::ContainerKey;
use berth_record::Folder;
use tokio::sync::mpsc;

use super::Fact;
use crate::deps::{ShimProcess, Stream};
use crate::env::Env;
use crate::shim::{Client, News};

#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) client: Arc<Client>,
}

impl Link {
    /// Takes a connection over; its news become facts.
    pub(crate) fn new(
        env: &Env,
        stream: Box<dyn Stream>,
        process: Arc<ShimProcess>,
        facts: &mpsc::Sender<Box<Fact>>,
    ) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        // Weak, so that an idle connection does not keep an ended task's mailbox.
        let facts = facts.downgrade();
        let sink = Box::new(move |news| {
            let facts = facts.clone();
            let sending: crate::deps::BoxFuture<'static, ()> = Box::pin(async move {
                let fact = match news {
                    News::Event(event) => Fact::Shim(number, event),
                    News::Gone => Fact::ShimGone(number),
                };
                if let Some(facts) = facts.upgrade() {
                    // A task that has ended wants no news.
                    let _ = facts.send(Box::new(fact)).await;
                }
            });
            sending
        });
        Self {
            number,
            client: Arc::new(Client::new(stream, process, env.clock.generation(), sink)),
        }
    }

    /// A new shim on this folder.
    pub(crate) async fn fork(
        env: &Env,
        folder: &Arc<Folder>,
        key: &ContainerKey,
        facts: &mpsc::Sender<Box<Fact>>,
    ) -> std::io::Result<Self> {
        let forked = env.shims.fork(folder, key).await?;
        Ok(Self::new(env, forked.stream, forked.process, facts))
    }
}
