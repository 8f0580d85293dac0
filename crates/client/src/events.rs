//! Events, across restarts. Every event has one number for ever: after a break the stream goes on behind the last cursor, and what
//! comes twice is dropped by its number.

use berth_wire::v1::events_response::Item;
use berth_wire::v1::{Event, EventsRequest, EventsResponse};
use tonic::{Code, Status, Streaming};

use crate::client::{Client, Patience};
use crate::error::{Error, Result};

/// One thing that a reader of events learns.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub enum Happened {
    Event(Event),
    /// All history was given; live events follow. Once.
    CaughtUp,
    /// Some events are not to be had any more; the message says which.
    Missed(String),
}

/// Made by [`Client::events`].
#[derive(Debug)]
pub struct Events {
    client: Client,
    stream: Option<Streaming<EventsResponse>>,
    place: Place,
    patience: Patience,
}

impl Client {
    /// What happens, behind the cursor `since` (empty = from now on, "0" = all there is).
    pub fn events(&self, mut request: EventsRequest) -> Events {
        self.fill(&mut request.namespace);
        Events {
            client: self.clone(),
            stream: None,
            place: Place::new(request),
            patience: self.patience(),
        }
    }
}

impl Events {
    /// The next one; `None` after the past, if only that was asked for. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Happened>> {
        loop {
            let status = match &mut self.stream {
                None => {
                    let request = self.place.request.clone();
                    match self.client.stub().events(request).await {
                        Ok(answer) => {
                            self.stream = Some(answer.into_inner());
                            continue;
                        }
                        Err(status) => status,
                    }
                }
                Some(stream) => match stream.message().await {
                    Ok(Some(answer)) => match self.place.take(answer) {
                        Taken::Give(happened) => return Ok(Some(happened)),
                        Taken::Skip => continue,
                        Taken::Reopen => {
                            self.stream = None;
                            continue;
                        }
                    },
                    Ok(None) if self.place.request.history_only => return Ok(None),
                    // berthd ended the stream on its way down.
                    Ok(None) => Status::unavailable("the stream ended"),
                    Err(status) => status,
                },
            };
            self.stream = None;
            match self.client.wait_or_fail(&mut self.patience, "events", "", status).await {
                Ok(()) => {}
                Err(Error::Refused {
                    code: Code::OutOfRange,
                    message,
                    ..
                }) if self.place.last.is_some() => {
                    self.place.start_over();
                    return Ok(Some(Happened::Missed(message)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where a later reader goes on.
    pub fn cursor(&self) -> &str {
        &self.place.request.since
    }
}

/// How far a reader is.
#[derive(Debug)]
struct Place {
    request: EventsRequest,
    /// Epoch and number of the last event seen.
    last: Option<(String, u64)>,
    caught_up: bool,
}

#[expect(clippy::large_enum_variant, reason = "it lives for one return")]
enum Taken {
    Give(Happened),
    Skip,
    /// The stream was ended because we were too slow for it.
    Reopen,
}

impl Place {
    fn new(request: EventsRequest) -> Self {
        Place {
            request,
            last: None,
            caught_up: false,
        }
    }

    fn take(&mut self, answer: EventsResponse) -> Taken {
        match answer.item {
            Some(Item::Event(event)) => self.event(event),
            Some(Item::LaggedCursor(cursor)) => {
                self.request.since = cursor;
                Taken::Reopen
            }
            Some(Item::CaughtUpCursor(cursor)) => {
                self.last.get_or_insert_with(|| (epoch(&cursor).to_owned(), 0));
                self.request.since = cursor;
                match std::mem::replace(&mut self.caught_up, true) {
                    false => Taken::Give(Happened::CaughtUp),
                    true => Taken::Skip,
                }
            }
            None => Taken::Skip,
        }
    }

    fn event(&mut self, event: Event) -> Taken {
        let epoch = epoch(&event.cursor);
        if self
            .last
            .as_ref()
            .is_some_and(|(last, number)| last == epoch && event.number <= *number)
        {
            return Taken::Skip;
        }
        self.last = Some((epoch.to_owned(), event.number));
        self.request.since.clone_from(&event.cursor);
        Taken::Give(Happened::Event(event))
    }

    /// The place we were at is gone: all there is now is new.
    fn start_over(&mut self) {
        self.request.since = "0".into();
        self.last = None;
    }
}

fn epoch(cursor: &str) -> &str {
    cursor.split_once(':').map_or("", |(epoch, _)| epoch)
}

#[cfg(test)]
mod test {
    use super::*;

    fn event(number: u64) -> Item {
        Item::Event(Event {
            cursor: format!("e1:{number}"),
            number,
            ..Default::default()
        })
    }

    fn take(place: &mut Place, item: Item) -> Taken {
        place.take(EventsResponse { item: Some(item) })
    }

    #[test]
    fn what_comes_twice_is_given_once() {
        let mut place = Place::new(EventsRequest::default());
        assert!(matches!(take(&mut place, event(5)), Taken::Give(_)));
        assert_eq!(place.request.since, "e1:5");
        for number in [4, 5] {
            assert!(matches!(take(&mut place, event(number)), Taken::Skip));
        }
        assert!(matches!(take(&mut place, event(6)), Taken::Give(_)));
        assert!(matches!(
            take(&mut place, Item::LaggedCursor("e1:9".into())),
            Taken::Reopen
        ));
        assert_eq!(place.request.since, "e1:9");
        place.start_over();
        assert_eq!((place.request.since.as_str(), place.last), ("0", None));
    }

    #[test]
    fn catching_up_is_told_once_and_gives_a_place() {
        let mut place = Place::new(EventsRequest::default());
        let caught_up = || Item::CaughtUpCursor("e1:3".into());
        assert!(matches!(take(&mut place, caught_up()), Taken::Give(Happened::CaughtUp)));
        assert!(matches!(take(&mut place, caught_up()), Taken::Skip));
        assert_eq!(place.request.since, "e1:3");
        assert!(place.last.is_some(), "a break from here on can be told");
    }
}
