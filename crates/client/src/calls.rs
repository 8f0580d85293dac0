//! The unary calls. Each fills in the namespace, and the request id where the call changes something.

use berth_wire::v1::*;

use crate::client::{Client, random_id};
use crate::error::Result;

/// Containers asked for at once.
const PAGE: u32 = 1000;

/// `id` and `namespace` are in the request, or in the container that it holds.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident $($changes:ident)?) -> $response:ident;)*) => {
        impl Client {
            $($(#[$doc])* pub async fn $name(&self, mut request: $request) -> Result<$response> {
                self.fill(&mut request.namespace);
                $(if request.$changes.is_empty() {
                    request.$changes = random_id();
                })?
                let id = request.id.clone();
                self.call(stringify!($name), &id, request, |mut stub, request| async move { stub.$name(request).await })
                    .await
            })*
        }
    };
}

calls! {
    /// Starts a created container.
    start(StartRequest request_id) -> StartResponse;
    /// Starts one more process inside.
    exec(ExecRequest request_id) -> ExecResponse;
    signal(SignalRequest request_id) -> SignalResponse;
    /// Answers when the container has ended.
    stop(StopRequest request_id) -> StopResponse;
    /// Answers when the process has ended, however often berthd is restarted meanwhile.
    wait(WaitRequest) -> WaitResponse;
    delete(DeleteRequest request_id) -> DeleteResponse;
    pause(PauseRequest request_id) -> PauseResponse;
    resume(ResumeRequest request_id) -> ResumeResponse;
    update(UpdateRequest request_id) -> UpdateResponse;
    get(GetRequest) -> GetResponse;
    close_stdin(CloseStdinRequest request_id) -> CloseStdinResponse;
    resize_terminal(ResizeTerminalRequest) -> ResizeTerminalResponse;
}

impl Client {
    /// Creates a container and starts it.
    pub async fn run(&self, mut request: RunRequest) -> Result<RunResponse> {
        let id = self.prepare(&mut request.container, &mut request.request_id);
        self.call("run", &id, request, |mut stub, request| async move {
            stub.run(request).await
        })
        .await
    }

    /// Creates a container and leaves it before execve.
    pub async fn create(&self, mut request: CreateRequest) -> Result<CreateResponse> {
        let id = self.prepare(&mut request.container, &mut request.request_id);
        self.call("create", &id, request, |mut stub, request| async move {
            stub.create(request).await
        })
        .await
    }

    /// All of them, page by page: any number is too many for one message.
    pub async fn list(&self, mut request: ListRequest) -> Result<Vec<Container>> {
        self.fill(&mut request.namespace);
        if request.page_size == 0 {
            request.page_size = PAGE;
        }
        let mut containers = Vec::new();
        loop {
            let page = self
                .call("list", "", request.clone(), |mut stub, request| async move {
                    stub.list(request).await
                })
                .await?;
            containers.extend(page.containers);
            if page.next.is_empty() {
                return Ok(containers);
            }
            request.after = page.next;
        }
    }

    pub async fn version(&self) -> Result<VersionResponse> {
        self.call("version", "", VersionRequest {}, |mut stub, request| async move {
            stub.version(request).await
        })
        .await
    }

    pub(crate) fn fill(&self, namespace: &mut String) {
        if namespace.is_empty() {
            namespace.clone_from(&self.namespace);
        }
    }

    fn prepare(&self, container: &mut Option<ContainerSpec>, request_id: &mut String) -> String {
        if request_id.is_empty() {
            *request_id = random_id();
        }
        let Some(container) = container else {
            return String::new();
        };
        self.fill(&mut container.namespace);
        container.id.clone()
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::fake::{Daemon, Script};

    #[tokio::test]
    async fn a_call_that_breaks_is_made_again_under_one_request_id() {
        let daemon = Daemon::start(Script {
            breaks: 2,
            ..Script::default()
        })
        .await;
        let request = StopRequest {
            id: "web".into(),
            ..Default::default()
        };
        let answer = daemon.client().await.stop(request).await.expect("the third time");
        assert_eq!(answer.exit.map(|exit| exit.code), Some(7));
        let seen = daemon.seen();
        assert_eq!((seen.len(), seen[0].len()), (3, 32));
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
    }

    #[tokio::test]
    async fn a_request_id_of_the_callers_is_kept() {
        let daemon = Daemon::start(Script::default()).await;
        let request = StopRequest {
            request_id: "mine".into(),
            ..Default::default()
        };
        daemon.client().await.stop(request).await.expect("answered");
        assert_eq!(daemon.seen(), ["mine"]);
    }
}
