//! Leases in Parameter Store: `/rollcall-control/<fleet>/lease/<n>`, create-only.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use contract::names::lease_parameter;
use jiff::Timestamp;

use crate::aws::poll::{Pace, breathe};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::stack::lease::protocol::Ground;
use crate::stack::lease::record::{Process, Record};

/// DeleteParameters takes ten names (Systems Manager API reference).
const BATCH: usize = 10;

/// A fleet's leases.
#[derive(Clone, Debug)]
pub struct Parameters {
    ssm: Client,
    fleet: String,
}

impl Parameters {
    pub(super) fn new(clients: &Clients, fleet: &str) -> Self {
        Self { ssm: clients.ssm.clone(), fleet: fleet.to_owned() }
    }

    pub(super) fn fleet(&self) -> &str {
        &self.fleet
    }

    fn name(&self, number: u64) -> String {
        lease_parameter(&self.fleet, number)
    }

    async fn put(&self, number: u64, record: &Record, anew: bool) -> Result<(), AwsError> {
        let name = self.name(number);
        let what = || format!("write the fleet's lease `{name}`");
        let value = serde_json::to_string(record)
            .map_err(|_| AwsError::Incomplete { attempted: what(), missing: "JSON" })?;
        let call = self.ssm.put_parameter().name(&name).value(value).overwrite(anew);
        call.r#type(ParameterType::String).send().await.attempted(what).map(drop)
    }
}

/// The path of a fleet's leases.
#[must_use]
pub fn path(fleet: &str) -> String {
    let first = lease_parameter(fleet, 1);
    first.trim_end_matches("/1").to_owned()
}

impl Ground for Parameters {
    async fn list(&self) -> Result<Vec<(u64, Record)>, AwsError> {
        let path = path(&self.fleet);
        let what = || format!("read the fleet's leases `{path}`");
        let call = self.ssm.get_parameters_by_path().path(&path);
        let pages = call.into_paginator().send().try_collect().await.attempted(what)?;
        let mut leases = Vec::new();
        for parameter in pages.iter().flat_map(|page| page.parameters()) {
            let number = parameter.name().and_then(|name| name.rsplit('/').next()?.parse().ok());
            let record = parameter.value().and_then(|value| serde_json::from_str(value).ok());
            match (number, record) {
                (Some(number), Some(record)) => leases.push((number, record)),
                // Written by a later version, or by hand: nobody knows whose it is.
                (Some(_), None) => {
                    return Err(AwsError::Incomplete {
                        attempted: what(),
                        missing: "legible lease",
                    });
                }
                (None, _) => {}
            }
        }
        leases.sort_by_key(|(number, _)| *number);
        Ok(leases)
    }

    async fn create(&self, number: u64, record: &Record) -> Result<bool, AwsError> {
        match self.put(number, record, false).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("ParameterAlreadyExists") => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, number: u64, record: &Record) -> Result<(), AwsError> {
        self.put(number, record, true).await
    }

    async fn delete(&self, numbers: &[u64]) -> Result<(), AwsError> {
        for batch in numbers.chunks(BATCH) {
            let names = batch.iter().map(|number| self.name(*number)).collect();
            let call = self.ssm.delete_parameters().set_names(Some(names));
            call.send().await.attempted(|| "remove the fleet's leases".to_owned())?;
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn is_gone(&self, process: &Process) -> bool {
        process.is_gone()
    }

    async fn pause(&self) {
        breathe(Pace::default()).await;
    }
}
