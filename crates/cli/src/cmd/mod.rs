//! One file a command. A command takes its options, calls berthd, prints, and gives the exit code.

pub mod attach;
pub mod completion;
pub mod cp;
pub mod create;
pub mod diagnose;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod pause;
pub mod prune;
pub mod ps;
pub mod rm;
pub mod run;
pub mod spec;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod update;
pub mod version;
pub mod wait;

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args::{Cli, Command};
use crate::error::{CliError, Result};
use crate::out::{Out, complain};
use crate::term;
use berth_client::Client;

/// What every command gets.
#[derive(Debug)]
pub struct Context {
    pub out: Out,
    pub namespace: String,
    address: PathBuf,
}

impl Context {
    pub async fn client(&self) -> Result<Client> {
        let client = Client::connect(&self.address, &self.namespace).await?;
        Ok(client.when_away(|| complain("berthd went away; waiting for it to come back")))
    }
}

pub async fn dispatch(cli: Cli) -> Result<u8> {
    let context = Context {
        out: Out { json: cli.global.json },
        namespace: cli.global.namespace(),
        address: cli.global.address(),
    };
    match cli.command {
        Command::Run(args) => run::run(&context, args).await,
        Command::Create(args) => create::create(&context, args).await,
        Command::Start(args) => start::start(&context, args).await,
        Command::Ps(args) if args.watch => while_read(ps::ps(&context, args)).await,
        Command::Ps(args) => ps::ps(&context, args).await,
        Command::Logs(args) => while_read(logs::logs(&context, args)).await,
        Command::Exec(args) => exec::exec(&context, args).await,
        Command::Attach(args) => attach::attach(&context, args).await,
        Command::Stop(args) => stop::stop(&context, args).await,
        Command::Kill(args) => kill::kill(&context, args).await,
        Command::Rm(args) => rm::rm(&context, args).await,
        Command::Pause(args) => pause::pause(&context, args).await,
        Command::Unpause(args) => pause::unpause(&context, args).await,
        Command::Update(args) => update::update(&context, args).await,
        Command::Stats(args) => while_read(stats::stats(&context, args)).await,
        Command::Events(args) => while_read(events::events(&context, args)).await,
        Command::Wait(args) => wait::wait(&context, args).await,
        Command::Inspect(args) => inspect::inspect(&context, args).await,
        Command::Spec(args) => spec::spec(&context, args),
        Command::Doctor(args) => doctor::doctor(&context, &args).await,
        Command::Cp(args) => cp::cp(&context, args).await,
        // Before there are threads: see `main`.
        Command::CpInside(args) => Ok(cp::inside::run(&args)),
        Command::Prune(args) => prune::prune(&context, args).await,
        Command::Diagnose(args) => diagnose::diagnose(&context, args).await,
        Command::Top(args) => top::top(&context, args).await,
        Command::Completion(args) => completion::completion(&context, &args),
        Command::Man(args) => completion::man(&args),
        Command::Version => version::version(&context).await,
    }
}

/// What may print nothing for hours ends when nobody can read it any more.
async fn while_read(command: impl Future<Output = Result<u8>>) -> Result<u8> {
    tokio::select! {
        biased;
        result = command => result,
        () = term::stdout_closed() => Err(CliError::StdoutClosed),
    }
}

/// What one of several containers gives: a line for people, fields for `--json`.
#[derive(Debug)]
pub struct Done {
    pub line: String,
    pub fields: Value,
}

impl Done {
    pub fn id(id: &str) -> Self {
        Self {
            line: id.to_owned(),
            fields: json!({}),
        }
    }
}

/// The same on several containers at once; results are printed as they come. 1 if any failed.
async fn each<F>(context: &Context, client: &Client, ids: Vec<String>, work: F) -> Result<u8>
where
    F: AsyncOne,
{
    let mut running = JoinSet::new();
    for id in ids {
        let (client, work) = (client.clone(), work.clone());
        running.spawn(async move {
            let result = work.one(&client, &id).await;
            (id, result)
        });
    }
    let mut code = 0;
    while let Some(joined) = running.join_next().await {
        let (id, result) = match joined {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match result {
            Ok(done) if context.out.json => {
                let mut object = json!({ "namespace": context.namespace, "id": id, "ok": true });
                if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), done.fields) {
                    object.extend(fields);
                }
                context.out.object(&object)?;
            }
            Ok(done) => context.out.line(&done.line)?,
            Err(error) => {
                code = 1;
                if context.out.json {
                    context.out.object(
                        &json!({ "namespace": context.namespace, "id": id, "ok": false, "error": error.to_json() }),
                    )?;
                } else {
                    error.report(false);
                }
            }
        }
    }
    Ok(code)
}

/// The work of `each` on one container. A trait, for a spawned future must be `Send`, which a bound on `AsyncFn` can't say yet.
trait AsyncOne: Clone + Send + 'static {
    fn one(&self, client: &Client, id: &str) -> impl Future<Output = Result<Done>> + Send;
}
