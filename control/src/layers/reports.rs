//! The parameters that a fleet's nodes and `control` wrote: removed last, when nobody writes any more.

use aws_sdk_ssm::types::{ParameterStringFilter, ParametersFilterKey};
use contract::names::{CONTROL_PREFIX, REPORT_PREFIX};

use crate::aws::{Attempted as _, AwsError};
use crate::stack::lease::store;
use crate::stack::{StackError, World};

/// DeleteParameters takes ten names (Systems Manager API reference).
const BATCH: usize = 10;

/// Names of the fleet's parameters, without its leases, which outlive everything else.
///
/// # Errors
/// Those of the reads.
pub async fn list(world: &World) -> Result<Vec<String>, StackError> {
    let leases = format!("{}/", store::path(&world.scope.fleet));
    let mut names = Vec::new();
    for prefix in [REPORT_PREFIX, CONTROL_PREFIX] {
        let path = format!("{prefix}/{}/", world.scope.fleet);
        let filter = ParameterStringFilter::builder()
            .key(ParametersFilterKey::Name.as_str())
            .option("BeginsWith")
            .values(&path)
            .build();
        let what = || format!("list the parameters under `{path}`");
        let filter =
            filter.map_err(|_| AwsError::Incomplete { attempted: what(), missing: "key" })?;
        let call = world.clients.ssm.describe_parameters().parameter_filters(filter);
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.attempted(what)?;
            let found = page.parameters().iter().filter_map(|parameter| parameter.name());
            let others = found.filter(|name| !name.starts_with(&leases));
            names.extend(others.map(str::to_owned));
        }
    }
    Ok(names)
}

/// Removes them.
///
/// # Errors
/// AWS's refusal.
pub async fn delete(world: &World) -> Result<(), StackError> {
    let names = list(world).await?;
    if !names.is_empty() {
        world.lease.prove().await?;
    }
    for batch in names.chunks(BATCH) {
        let call = world.clients.ssm.delete_parameters().set_names(Some(batch.to_vec()));
        call.send().await.attempted(|| format!("delete {} parameters", batch.len()))?;
    }
    Ok(())
}
