//! The way through the start queue, and the start of a container that was created before.

use berth_core::state::{Input, State};
use berth_core::{ErrorCode, EventKind, ExitStatus};
use berth_record::{ContainerRecord, StageRecord};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::time::{Duration, Instant};

use super::task::Task;
use super::{Fact, Link, Starter};
use crate::gate::Permit;
use crate::shim::{self, CallError};
use crate::stage::stage;
use crate::types::{NewEvent, Stage};

impl Task {
    /// Joins the line; what comes of it is a fact.
    pub(super) fn enqueue(&mut self) {
        let mut place = match self.env.gate.enter(&self.key.namespace) {
            Ok(place) => place,
            Err(full) => {
                let operation = self.start_operation();
                let message = format!(
                    "{} starts are waiting already (start.queue_limit); try again later",
                    full.limit
                );
                let error = self.error(operation, ErrorCode::Resources, message);
                if let Some(starter) = self.starter.take() {
                    starter.fail(error);
                }
                self.beside(async { Fact::Abandoned });
                return;
            }
        };
        let gone: crate::deps::BoxFuture<'static, ()> = match &self.starter {
            Some(Starter::Make(reply)) => {
                reply.stage("queued");
                Box::pin(reply.abandoned())
            }
            Some(Starter::Start(reply)) => {
                reply.stage("queued");
                stage!("start.queued");
                Box::pin(reply.abandoned())
            }
            None => Box::pin(std::future::pending()),
        };
        self.queued_at = Instant::now();
        let facts = self.facts_in.clone();
        let helper = tokio::spawn(async move {
            let fact = tokio::select! {
                biased;
                permit = place.admitted() => Fact::Permit(permit),
                () = gone => if place.leave() { Fact::Abandoned } else { Fact::Permit(place.admitted().await) },
            };
            // The task has ended: the permit gives itself back.
            let _ = facts.send(Box::new(fact)).await;
        });
        self.queued = Some(helper.abort_handle());
    }

    /// Deleted while it waits.
    pub(super) fn leave_queue(&mut self) {
        if let Some(helper) = self.queued.take() {
            // Its place goes with it.
            helper.abort();
        }
        if self.permit.is_none()
            && let Some(starter) = self.starter.take()
        {
            self.env.counters().starts_cancelled += 1;
            let operation = self.start_operation();
            starter.fail(self.error(
                operation,
                ErrorCode::Cancelled,
                "the container was deleted while it waited for its start",
            ));
        }
    }

    pub(super) fn start_operation(&self) -> &'static str {
        match (&self.starter, self.record.run) {
            (Some(Starter::Start(_)), _) => "start",
            (_, true) => "run",
            (_, false) => "create",
        }
    }

    pub(super) fn permitted(&mut self, permit: Permit) {
        self.queued = None;
        if self.env.is_closing() {
            let error = self.error(
                self.start_operation(),
                ErrorCode::ShuttingDown,
                "the daemon is shutting down",
            );
            if let Some(starter) = self.starter.take() {
                starter.fail(error);
            }
            return self.input(Input::Abandoned, None);
        }
        if !matches!(self.state, State::Queued | State::Starting | State::Restarting) {
            return;
        }
        let waited = self.queued_at.elapsed();
        self.env.observe("queue", waited);
        self.record.stages.clear();
        self.add_stage("queue", waited);
        match &self.starter {
            Some(Starter::Make(reply)) => {
                reply.stage("creating");
                stage!("create.permitted");
            }
            Some(Starter::Start(reply)) => {
                reply.stage("starting");
                stage!("start.permitted");
            }
            None => {}
        }
        self.permit = Some(permit);
        self.input(Input::Permit, None);
    }

    pub(super) fn add_stage(&mut self, name: &str, duration: Duration) {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.record.stages.push(StageRecord {
            name: name.into(),
            duration_us,
        });
    }

    pub(super) fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.record.start_timeout_ms)
    }

    pub(super) fn send_start(&mut self) {
        let deadline = self.start_timeout();
        let (key, link) = (self.key.clone(), self.link.clone());
        // Before it is sent: the daemon that comes after this one completes it, and may be asked again by the same request id.
        if let Some(folder) = self.folder.as_ref().filter(|_| !self.record.start_sent) {
            let record = ContainerRecord {
                start_request_id: self.start_request_id.clone(),
                start_sent: true,
                ..self.record.clone()
            };
            if let Err(error) = folder.write_container(&record) {
                tracing::warn!(container = %self.key, %error, "a start could not be noted");
            }
        }
        self.beside(async move {
            let Some(link) = link else {
                return Fact::StartAnswered(Err(super::calls::no_shim("start", &key)));
            };
            let began = Instant::now();
            let request = wire::StartRequest {};
            let calling = async {
                let pending = link.client.send::<wire::StartResponse>(Method::Start, &request).await?;
                stage!("start.sent");
                pending.answer().await
            };
            let timeout = CallError::Timeout {
                method: "Start",
                after: deadline,
            };
            let result = tokio::time::timeout(deadline, calling).await.unwrap_or(Err(timeout));
            let result = match result {
                // The start that an earlier daemon had sent was under way, and has succeeded.
                Err(CallError::Failed { .. }) if was_started(&link, deadline).await => {
                    Ok(wire::StartResponse::default())
                }
                result => result,
            };
            let result = result.map_err(|e| e.into_error("start", &key)).map(|mut response| {
                let mut stages: Vec<Stage> = shim::stages(std::mem::take(&mut response.stages)).collect();
                stages.push(Stage {
                    name: "start".into(),
                    duration: began.elapsed(),
                });
                (stages, response.started_at)
            });
            Fact::StartAnswered(result)
        });
    }

    pub(super) fn start_answered(&mut self, result: Result<(Vec<Stage>, i64), crate::Error>) {
        stage!("start.answered");
        self.permit = None;
        let starter = self.starter.take();
        match result {
            Ok((stages, at)) => {
                for stage in stages {
                    self.add_stage(&stage.name, stage.duration);
                }
                self.count_start();
                self.record.started_at = match at {
                    // Of a shim of an earlier release, or asked for after the answer was lost.
                    0 => self.env.clock.now(),
                    at => at,
                };
                self.record.start_sent = true;
                self.record.start_request_id = std::mem::take(&mut self.start_request_id);
                self.input(Input::Started, None);
                if let Some(Starter::Start(reply)) = starter {
                    reply.send(Ok(self.pid));
                }
            }
            Err(error) => {
                self.env.counters().starts_failed += 1;
                self.failure = Some(error.clone());
                self.input(Input::StartFailed, None);
                if let Some(starter) = starter {
                    starter.fail(error);
                }
            }
        }
    }

    pub(super) fn count_start(&mut self) {
        let total = self.queued_at.elapsed();
        self.add_stage("total", total);
        self.env.observe("total", total);
        self.env.counters().starts_ok += 1;
    }

    pub(super) fn tell_start_failed(&mut self) {
        let failure = self.failure.clone();
        let (message, code) = match &failure {
            Some(error) => (
                error.message().to_owned(),
                u8::try_from(error.exit_code()).unwrap_or_default(),
            ),
            None => ("the start was given up".to_owned(), 0),
        };
        if self.state == State::Deleting {
            // It never had a process: who waits for its end hears why.
            let code = if code == 0 { ExitStatus::UNKNOWN } else { code };
            self.exit = Some(ExitStatus::start_failed(self.env.clock.now(), code, message.clone()));
        }
        let event = NewEvent {
            message,
            ..self.event(EventKind::StartFailed)
        };
        self.say(event, None);
    }
}

/// By the shim's own account.
async fn was_started(link: &Link, deadline: Duration) -> bool {
    let asked = link
        .client
        .call::<wire::StateResponse>(Method::State, &wire::StateRequest {}, deadline)
        .await;
    asked.is_ok_and(|state| {
        state
            .processes
            .iter()
            .any(|p| p.exec_id.is_empty() && p.started_at != 0)
    })
}
