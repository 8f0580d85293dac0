//! `berth update`: only what is given changes.

use berth_wire::v1::{Resources, UpdateRequest};
use clap::Args;

use super::create::{Restart, restart_policy};
use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::{CliError, Result};
use crate::human::parse_limit;
use berth_client::{Client, random_id};

/// Microseconds; what runc and Docker take for `--cpus`.
const CPU_PERIOD: u64 = 100_000;

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// Memory limit, as 512m; -1 = none
    #[arg(long, short, value_name = "SIZE", value_parser = parse_limit, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Limit of memory and swap together; -1 = none
    #[arg(long, value_name = "SIZE", value_parser = parse_limit, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Memory that is left to it when the host runs short
    #[arg(long, value_name = "SIZE", value_parser = parse_limit, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// How many CPUs it may use, as 1.5; -1 = all
    #[arg(long, value_name = "N", allow_hyphen_values = true, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub cpus: Option<f64>,
    /// Weight against others, 2 to 262144
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time a period; -1 = no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// CPUs it may run on, as 0-3,7
    #[arg(long, value_name = "CPUS")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "NODES")]
    pub cpuset_mems: Option<String>,
    /// How many processes it may have; -1 = any
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Weight of its disk use, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u32>,
    /// What is done after its next end: no, on-failure, on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart_policy)]
    pub restart: Option<Restart>,
}

impl UpdateArgs {
    fn resources(&self) -> Result<Resources> {
        let mut resources = Resources {
            memory_limit: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
        };
        match self.cpus {
            None => {}
            Some(-1.0) => resources.cpu_quota = Some(-1),
            // The kernel's smallest quota is a millisecond.
            Some(cpus) if (0.01..=1e6).contains(&cpus) => {
                resources.cpu_quota = Some((cpus * CPU_PERIOD as f64).round() as i64);
                resources.cpu_period = Some(CPU_PERIOD);
            }
            Some(cpus) => {
                return Err(CliError::Usage(format!(
                    "--cpus {cpus}: expected 0.01 or more, or -1 for all"
                )));
            }
        }
        if resources == Resources::default() && self.restart.is_none() {
            return Err(CliError::Usage(
                "nothing to change: give at least one of --memory, --cpus, --pids-limit, …".into(),
            ));
        }
        Ok(resources)
    }
}

#[derive(Clone)]
struct Update(Resources, Option<Restart>);

impl AsyncOne for Update {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = UpdateRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            resources: (self.0 != Resources::default()).then(|| self.0.clone()),
            resources_json: Default::default(),
            request_id: random_id(),
            restart: self.1.map(|r| r.policy.into()),
            restart_max: self.1.map_or(0, |r| r.max),
        };
        client.update(request).await?;
        Ok(Done::id(id))
    }
}

pub async fn update(context: &Context, args: UpdateArgs) -> Result<u8> {
    let resources = args.resources()?;
    let update = Update(resources, args.restart);
    each(context, &context.client().await?, args.ids, update).await
}

#[cfg(test)]
mod test {
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn resources(line: &str) -> super::Result<super::Resources> {
        let cli = Cli::try_parse_from(format!("berth update web {line}").split_whitespace()).expect("grammar");
        let Command::Update(args) = cli.command else { panic!() };
        args.resources()
    }

    #[test]
    fn cpus_become_quota_and_period() {
        let half = resources("--cpus 1.5 --memory 64m --memory-swap -1").expect("resources");
        assert_eq!((half.cpu_quota, half.cpu_period), (Some(150_000), Some(100_000)));
        assert_eq!((half.memory_limit, half.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!(resources("--cpus -1").expect("resources").cpu_quota, Some(-1));
        for line in ["", "--cpus 0", "--cpus NaN", "--cpus -2"] {
            assert!(resources(line).is_err(), "{line}");
        }
    }
}
