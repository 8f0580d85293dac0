//! `berth inspect`: one JSON array of all that was asked for, in order; there is no other form.

use berth_wire::v1::GetRequest;
use clap::Args;
use serde_json::Value;

use super::Context;
use crate::complete;
use crate::error::{CliError, Result};
use crate::json;

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
}

pub async fn inspect(context: &Context, args: InspectArgs) -> Result<u8> {
    let client = context.client().await?;
    let mut found = Vec::new();
    let mut code = 0;
    for id in args.ids {
        let request = GetRequest {
            namespace: context.namespace.clone(),
            id: id.clone(),
            processes: true,
        };
        match client.get(request).await {
            Ok(response) => found.extend(response.container.as_ref().map(json::container)),
            Err(error) => {
                CliError::from(error).report(context.out.json);
                code = 1;
            }
        }
    }
    context.out.document(&Value::Array(found))?;
    Ok(code)
}
