//! Events: published once, numbered for ever, read by cursor.

mod bus;
mod codec;
mod journal;

pub use bus::{Bus, EventStream};
pub use journal::Journal;

use crate::types::EventQuery;
use crate::{Error, Supervisor};

impl Supervisor {
    /// History from the cursor on, then what happens.
    pub async fn events(&self, query: EventQuery) -> Result<EventStream, Error> {
        let stream = self.bus()?.subscribe(query)?;
        Ok(stream.named(self.env().calls.enter("events", None)))
    }
}
