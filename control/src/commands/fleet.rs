//! Which fleet a verb is about when it needs no fleet file: the one that is named, else the only one
//! that exists in the region.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use aws_sdk_ec2::types::Filter;
use aws_sdk_ssm::types::ParameterStringFilter;
use contract::ExitCode;
use contract::names::{CONTROL_PREFIX, TAG_FLEET};
use serde::Deserialize;

use crate::aws::{Attempted as _, AwsError, Clients};
use crate::cli::{FleetArgs, Global};
use crate::failure::Stated;
use crate::layers::identity::desired::RoleNames;

/// A fleet and the way to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Clients in the fleet's region.
    pub clients: Clients,
    /// The fleet's name, which is its cluster's; none when there is none in the region.
    pub name: Option<String>,
}

impl Found {
    /// The name, or a sentence that says that there is no fleet.
    ///
    /// # Errors
    /// When there is none.
    pub fn required(&self) -> anyhow::Result<&str> {
        self.name.as_deref().ok_or_else(|| {
            let region = &self.clients.region;
            Stated::new(ExitCode::Error, format!("there is no fleet in `{region}`"))
                .with_hint(
                    "control up -f <fleet file> builds one; --region looks in another region",
                )
                .into()
        })
    }
}

/// What of a fleet file says which fleet is meant. Whether the rest is sound is for `plan` and `up`:
/// a mistake in a pool must not keep anybody from looking at the fleet.
#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    region: Option<String>,
}

/// Finds the fleet that a command line is about.
///
/// # Errors
/// When the file cannot be read, AWS does not answer, or several fleets exist.
pub async fn find(args: &FleetArgs, global: &Global) -> anyhow::Result<Found> {
    let header = args.file.as_deref().map(header).transpose()?;
    let region = global
        .region
        .as_deref()
        .or_else(|| header.as_ref().and_then(|header| header.region.as_deref()));
    let clients = Clients::load(region).await?;
    let name = match header.map(|header| header.name).or_else(|| args.fleet.clone()) {
        Some(name) => Some(name),
        None => only_one(existing(&clients).await?, &clients.region)?,
    };
    Ok(Found { clients, name })
}

fn header(path: &Path) -> anyhow::Result<Header> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.with_context(|| {
        Stated::new(ExitCode::PreflightBlocked, format!("could not read the fleet file `{shown}`"))
    })?;
    serde_yaml::from_str(&text).with_context(|| {
        Stated::new(ExitCode::PreflightBlocked, format!("`{shown}` does not say which fleet it is"))
            .with_hint("a fleet file has `name:`; control plan -f names every mistake in it")
    })
}

/// The fleets in a region: by the tag on their VPCs, which are made first and go last, by the
/// clusters' own where the VPC was there before, and by the parameters that each keeps its lease in.
async fn existing(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let mut names = BTreeSet::new();
    let filter = Filter::builder().name("tag-key").values(TAG_FLEET).build();
    let mut pages = clients.ec2.describe_vpcs().filters(filter).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.attempted(|| format!("look for fleets in {}", clients.place()))?;
        let tags = page.vpcs().iter().flat_map(|vpc| vpc.tags());
        names.extend(
            tags.filter(|tag| tag.key() == Some(TAG_FLEET))
                .filter_map(|tag| tag.value().map(str::to_owned)),
        );
    }
    if names.is_empty() {
        names = with_clusters(clients).await?;
    }
    // A fleet in a network of others has no VPC to be found by, whatever else there is in the region.
    names.extend(with_parameters(clients).await?);
    Ok(names)
}

/// The fleets whose clusters exist.
async fn with_clusters(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let clusters = clients.eks.list_clusters().into_paginator().items().send();
    let clusters = clusters.collect::<Result<Vec<_>, _>>().await;
    let clusters = clusters.attempted(|| format!("list the clusters of {}", clients.place()))?;
    let mut names = BTreeSet::new();
    for name in clusters {
        let cluster = crate::aws::eks::cluster(clients, &name).await?;
        names.extend(cluster.and_then(|c| c.tags()?.get(TAG_FLEET).cloned()));
    }
    Ok(names)
}

/// The fleets that `control` has written parameters of. Its lease comes before everything else of a
/// fleet and goes last, so whatever a killed run has left is found by it.
async fn with_parameters(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let what = || format!("look for fleets' parameters in {}", clients.place());
    let filter = ParameterStringFilter::builder().key("Name").option("BeginsWith");
    let filter = filter.values(format!("{CONTROL_PREFIX}/")).build();
    let filter = filter.map_err(|_| AwsError::Incomplete { attempted: what(), missing: "key" })?;
    let call = clients.ssm.describe_parameters().parameter_filters(filter);
    let pages = call.into_paginator().send().try_collect().await.attempted(what)?;
    let found = pages.iter().flat_map(|page| page.parameters());
    let names = found.filter_map(|parameter| parameter.name());
    Ok(names.filter_map(|name| name.split('/').nth(2)).map(str::to_owned).collect())
}

/// Names of all fleets that something in the region speaks of: by the tag on anything of EC2's, on
/// clusters and roles, by the names of parameters and of buckets.
///
/// # Errors
/// When AWS does not answer.
pub async fn traces(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let mut names = with_parameters(clients).await?;
    let key = Filter::builder().name("key").values(TAG_FLEET).build();
    let tags = clients.ec2.describe_tags().filters(key).into_paginator().items().send();
    let tags = tags.try_collect().await;
    let tags = tags.attempted(|| format!("look for fleets' tags in {}", clients.place()))?;
    names.extend(tags.into_iter().filter_map(|tag| tag.value));
    names.extend(with_clusters(clients).await?);
    names.extend(with_roles(clients).await?);
    names.extend(with_buckets(clients).await?);
    Ok(names)
}

/// The fleets whose roles exist. Tags are asked for only where the name may be one of ours.
async fn with_roles(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let roles = clients.iam.list_roles().into_paginator().items().send().try_collect().await;
    let roles = roles.attempted(|| "list the account's roles".to_owned())?;
    let mut names = BTreeSet::new();
    for role in roles.iter().filter(|role| RoleNames::may_be(&role.role_name)) {
        let what = || format!("read the tags of the role `{}`", role.role_name);
        let tags = clients.iam.list_role_tags().role_name(&role.role_name).send().await;
        match tags.attempted(what) {
            Ok(answer) => {
                let ours = answer.tags.into_iter().filter(|tag| tag.key == TAG_FLEET);
                names.extend(ours.map(|tag| tag.value));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// The fleets whose buckets exist in this region: their names say whose they are.
async fn with_buckets(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let found = clients.s3.list_buckets().prefix("rollcall-").into_paginator().send();
    let found = found.try_collect().await;
    let found = found.attempted(|| "list the account's buckets".to_owned())?;
    let buckets = found.iter().flat_map(|page| page.buckets());
    let names = buckets.filter_map(|bucket| fleet_of_bucket(bucket.name()?, &clients.region));
    Ok(names.map(str::to_owned).collect())
}

/// `rollcall-prod-eu-west-1-111122223333` is `prod`'s.
fn fleet_of_bucket<'a>(bucket: &'a str, region: &str) -> Option<&'a str> {
    let (rest, account) = bucket.strip_prefix("rollcall-")?.rsplit_once('-')?;
    let numeric = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    rest.strip_suffix(region)?.strip_suffix('-').filter(|fleet| numeric && !fleet.is_empty())
}

fn only_one(names: BTreeSet<String>, region: &str) -> anyhow::Result<Option<String>> {
    if names.len() > 1 {
        let list: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        let several = format!("`{region}` has {} fleets: {}", list.len(), list.join(", "));
        return Err(Stated::new(ExitCode::Usage, several)
            .with_hint("say which one: --fleet NAME")
            .into());
    }
    Ok(names.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::advice_of;

    #[test]
    fn several_fleets_are_listed_and_none_is_guessed() {
        let names = BTreeSet::from(["prod".to_owned(), "test".to_owned()]);
        let error = only_one(names, "us-east-1").unwrap_err();
        assert_eq!(error.to_string(), "`us-east-1` has 2 fleets: `prod`, `test`");
        assert_eq!(advice_of(&error).unwrap().exit_code(), ExitCode::Usage);
        assert_eq!(only_one(BTreeSet::new(), "us-east-1").unwrap(), None);
        let one = BTreeSet::from(["prod".to_owned()]);
        assert_eq!(only_one(one, "us-east-1").unwrap().as_deref(), Some("prod"));
    }

    #[test]
    fn a_buckets_name_says_whose_it_is() {
        let of = |bucket| fleet_of_bucket(bucket, "eu-west-1");
        assert_eq!(of("rollcall-prod-a-eu-west-1-111122223333"), Some("prod-a"));
        for other in ["rollcall-eu-west-1-111122223333", "rollcall-x-us-east-1-111122223333"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of("rollcall-prod-eu-west-1-backup"), None);
    }

    #[test]
    fn a_file_with_a_mistake_still_says_which_fleet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.yaml");
        std::fs::write(&path, "name: prod\nregion: eu-west-1\npools: 7\n").unwrap();
        let header = header(&path).unwrap();
        assert_eq!((header.name.as_str(), header.region.as_deref()), ("prod", Some("eu-west-1")));
        std::fs::write(&path, "pools: []\n").unwrap();
        let error = super::header(&path).unwrap_err();
        assert_eq!(advice_of(&error).unwrap().exit_code(), ExitCode::PreflightBlocked);
        assert!(super::header(Path::new("/nowhere")).is_err());
    }
}
