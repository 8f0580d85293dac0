//! Lists that do not fit into one message come in pages.
//!
//! A page begins behind a name and not at a number, so that containers that come and go meanwhile neither hide nor repeat others.

use berth_core::{ContainerKey, ErrorCode};
use berth_supervisor::{ContainerView, Error};
use berth_wire::v1;
use prost::Message;

use crate::convert::{Subject, answer};
use crate::serve::MAX_MESSAGE;

/// What a container costs beside its own bytes: tag and length.
const AROUND: usize = 8;
/// The rest of the message.
const REST: usize = 1024;

/// Of `views`, which are in order, those behind `after`: all of them, or at most `size`.
pub fn page(subject: &Subject, views: Vec<ContainerView>, size: u32, after: &str) -> Result<v1::ListResponse, Error> {
    let after = match after {
        "" => None,
        name => Some(key(subject, name)?),
    };
    let all = views.len();
    let mut views = views
        .into_iter()
        .filter(|view| after.as_ref().is_none_or(|a| view.key > *a));
    let (mut page, mut bytes, mut last) = (v1::ListResponse::default(), REST, None);
    for view in views.by_ref() {
        let next = view.key.clone();
        let container = answer::container(view);
        bytes += container.encoded_len() + AROUND;
        let full = size != 0 && page.containers.len() == size as usize;
        if !full && bytes > MAX_MESSAGE && (size == 0 || page.containers.is_empty()) {
            let message = format!(
                "the answer is longer than {MAX_MESSAGE} bytes: {} of {all} containers fit; ask for pages (page_size), or for \
                 fewer by namespace or labels",
                page.containers.len()
            );
            return Err(subject.error(ErrorCode::Resources, message));
        }
        if full || bytes > MAX_MESSAGE {
            page.next = last.map(|key: ContainerKey| key.to_string()).unwrap_or_default();
            break;
        }
        page.containers.push(container);
        last = Some(next);
    }
    Ok(page)
}

fn key(subject: &Subject, name: &str) -> Result<ContainerKey, Error> {
    let (namespace, id) = name
        .split_once('/')
        .ok_or_else(|| subject.refuse("after", name, "what `next` said of the page before"))?;
    subject.key(namespace, id)
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use berth_core::{Incarnation, Signal, Stdio};
    use berth_supervisor::ContainerState;

    use super::*;

    fn views(count: usize, label: usize) -> Vec<ContainerView> {
        let view = |i| ContainerView {
            key: ContainerKey::parse("ns", &format!("c{i:03}")).unwrap(),
            incarnation: Incarnation::from_bytes([0; 16]),
            bundle: "/b".into(),
            runtime: "runc".into(),
            labels: [("l".to_owned(), "x".repeat(label))].into(),
            state: ContainerState::Created,
            pid: 1,
            last_pid: 1,
            created_at: 0,
            started_at: 0,
            exit: None,
            execs: Vec::new(),
            log_path: None,
            stdio: Stdio::null(),
            stop_signal: Signal::TERM,
            stop_timeout: Duration::ZERO,
            restart: berth_core::RestartPolicy::No,
            restart_count: 0,
            restart_at: 0,
            remove: false,
            limits: None,
            shim_pid: 0,
            processes: Vec::new(),
            cgroup: String::new(),
            log_dropped_bytes: 0,
            oom_kills: 0,
            stages: Vec::new(),
        };
        (0..count).map(view).collect()
    }

    fn subject() -> Subject {
        Subject::new("list", "*", "")
    }

    #[test]
    fn a_list_that_is_too_long_says_how_to_ask_for_it() {
        let error = page(&subject(), views(300, 64 << 10), 0, "").unwrap_err();
        assert_eq!(error.code(), ErrorCode::Resources);
        assert!(error.message().contains("page_size"), "{error}");
        let whole = page(&subject(), views(200, 64 << 10), 0, "").unwrap();
        assert_eq!((whole.containers.len(), whole.next.as_str()), (200, ""));
        assert!(whole.encoded_len() <= MAX_MESSAGE);
    }

    #[test]
    fn pages_hold_everything_once_and_fit() {
        for (count, label, size) in [(300, 64 << 10, 1000), (10, 1, 3), (9, 1, 3), (1, 1, 1), (0, 1, 5)] {
            let (mut ids, mut after) = (Vec::new(), String::new());
            loop {
                let page = page(&subject(), views(count, label), size, &after).unwrap();
                assert!(page.encoded_len() <= MAX_MESSAGE && page.containers.len() <= size as usize);
                ids.extend(page.containers.into_iter().map(|c| c.id));
                after = page.next;
                if after.is_empty() {
                    break;
                }
            }
            let wanted: Vec<_> = (0..count).map(|i| format!("c{i:03}")).collect();
            assert_eq!(ids, wanted);
        }
    }

    #[test]
    fn a_page_begins_behind_a_name_that_is_gone() {
        let rest = page(&subject(), views(3, 1), 5, "ns/c000.1").unwrap();
        assert_eq!(rest.containers.len(), 2);
        let error = page(&subject(), views(3, 1), 5, "nonsense").unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}
