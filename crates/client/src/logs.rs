//! A container's log, across restarts: after a break it goes on behind the last entry's cursor.

use std::collections::VecDeque;

use berth_wire::v1::{LogEntry, LogsRequest, LogsResponse};
use tonic::Streaming;

use crate::client::{Client, Patience};
use crate::error::Result;

/// Made by [`Client::logs`].
#[derive(Debug)]
pub struct Logs {
    client: Client,
    request: LogsRequest,
    stream: Option<Streaming<LogsResponse>>,
    entries: VecDeque<LogEntry>,
    patience: Patience,
}

impl Client {
    /// What a container wrote.
    pub fn logs(&self, mut request: LogsRequest) -> Logs {
        self.fill(&mut request.namespace);
        Logs {
            client: self.clone(),
            request,
            stream: None,
            entries: VecDeque::new(),
            patience: self.patience(),
        }
    }
}

impl Logs {
    /// The next entry; `None` at the end, which a follower reaches when the container has ended. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<LogEntry>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Some(entry));
            }
            let status = match &mut self.stream {
                None => match self.client.stub().logs(self.request.clone()).await {
                    Ok(answer) => {
                        self.stream = Some(answer.into_inner());
                        continue;
                    }
                    Err(status) => status,
                },
                Some(stream) => match stream.message().await {
                    Ok(Some(answer)) => {
                        if let Some(last) = answer.entries.last() {
                            // The cursor says it all from here on.
                            self.request.cursor.clone_from(&last.cursor);
                            self.request.tail = None;
                        }
                        self.entries = answer.entries.into();
                        continue;
                    }
                    Ok(None) => return Ok(None),
                    Err(status) => status,
                },
            };
            self.stream = None;
            self.client
                .wait_or_fail(&mut self.patience, "logs", &self.request.id, status)
                .await?;
        }
    }

    /// Entries that are here already: with them a writer fills its buffer before it flushes.
    pub fn ready(&mut self) -> impl Iterator<Item = LogEntry> + '_ {
        self.entries.drain(..)
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::fake::{Daemon, Script};
    use berth_wire::v1::LogPolicy;

    #[tokio::test]
    async fn a_log_that_breaks_off_goes_on_behind_its_cursor() {
        let daemon = Daemon::start(Script {
            output: b"abcdefgh".to_vec(),
            cut_after: Some(3),
            log: Some(LogPolicy::Block),
            ..Script::default()
        })
        .await;
        let mut logs = daemon.client().await.logs(LogsRequest {
            id: "web".into(),
            tail: Some(8),
            ..Default::default()
        });
        let mut read = Vec::new();
        while let Some(entry) = logs.next().await.expect("goes on") {
            read.extend_from_slice(&entry.data);
        }
        assert_eq!(read, b"abcdefgh");
        assert!(daemon.seen()[1..].iter().all(|seen| seen.ends_with("tail=None")));
    }
}
