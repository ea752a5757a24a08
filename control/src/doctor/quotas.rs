//! Service quotas: whether the account may have what the fleet asks for. [`short`] is pure; [`look`]
//! asks AWS. Quotas are found by name: their codes are hints that have changed before.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, Instance};
use contract::ErrorChain;
use contract::names::TAG_FLEET;
use serde_json::{Value, json};

use crate::aws::ec2::{TypeFacts, tag_of};
use crate::aws::signed::Service;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::FleetSpec;
use crate::config::network::{Nat, NetworkSpec};
use crate::config::problem::Problem;
use crate::config::spec::{Capacity, PoolSpec};

/// A quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// The service's code: `ec2`.
    pub service: String,
    /// Its code: `L-417A185B`.
    pub code: String,
    /// How much is allowed.
    pub value: f64,
}

/// What is allowed and what others use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaFacts {
    /// The account's quotas by name; empty when these credentials may not ask.
    pub quotas: BTreeMap<String, Quota>,
    /// Why nobody said what is allowed: a network without a way to Service Quotas.
    pub unasked: Option<String>,
    /// vCPUs that run and are not the fleet's, by the name of the quota that they count under.
    pub vcpus: BTreeMap<String, u32>,
    /// VPCs that are not the fleet's.
    pub vpcs: u32,
    /// Elastic addresses that are not the fleet's.
    pub addresses: u32,
}

/// Families of instance types, and the names of the quotas that they count under: on demand, spot.
const FAMILIES: [(&[&str], &str, &str); 9] = [
    (
        &["a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"],
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ),
    (
        &["g", "gr", "vt"],
        "Running On-Demand G and VT instances",
        "All G and VT Spot Instance Requests",
    ),
    (&["p"], "Running On-Demand P instances", "All P4, P3 and P2 Spot Instance Requests"),
    (&["f"], "Running On-Demand F instances", "All F Spot Instance Requests"),
    (&["x"], "Running On-Demand X instances", "All X Spot Instance Requests"),
    (&["inf"], "Running On-Demand Inf instances", "All Inf Spot Instance Requests"),
    (&["trn"], "Running On-Demand Trn instances", "All Trn Spot Instance Requests"),
    (&["dl"], "Running On-Demand DL instances", "All DL Spot Instance Requests"),
    (&["hpc"], "Running On-Demand HPC instances", "All HPC Spot Instance Requests"),
];
/// P5 and later have a spot quota of their own.
const SPOT_P5: &str = "All P5 Spot Instance Requests";
const VPCS: &str = "VPCs per Region";
const ADDRESSES: &str = "EC2-VPC Elastic IPs";

/// The name of the quota that an instance type counts under; none for one that has none.
#[must_use]
pub fn quota_of(instance_type: &str, spot: bool) -> Option<&'static str> {
    let (series, _) = instance_type.split_once('.')?;
    let family: String = series.chars().take_while(char::is_ascii_lowercase).collect();
    let (_, on_demand, spot_name) =
        FAMILIES.iter().find(|(families, ..)| families.contains(&family.as_str()))?;
    let late_p = family == "p" && !["p2", "p3", "p4"].iter().any(|old| series.starts_with(old));
    Some(match (spot, late_p) {
        (false, _) => on_demand,
        (true, true) => SPOT_P5,
        (true, false) => spot_name,
    })
}

/// The quota that a pool's nodes count under; none for a capacity block, which is paid beforehand.
fn quota_of_pool(pool: &PoolSpec) -> Option<&'static str> {
    match pool.capacity {
        Capacity::OnDemand | Capacity::Reserved(_) => quota_of(&pool.instance_type, false),
        Capacity::Spot => quota_of(&pool.instance_type, true),
        Capacity::Block(_) => None,
    }
}

impl QuotaFacts {
    /// What is in doubt because nobody could be asked.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let why = self.unasked.as_ref()?;
        Some(format!("whether the account's quotas suffice is not known: {why}"))
    }
}

/// Every quota that is too small for the fleet. Pure.
#[must_use]
pub fn short(
    spec: &FleetSpec,
    types: &BTreeMap<String, TypeFacts>,
    facts: &QuotaFacts,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut asked: BTreeMap<&'static str, (u32, usize)> = BTreeMap::new();
    for (index, pool) in spec.pools.iter().enumerate() {
        let Some(name) = quota_of_pool(pool) else { continue };
        let vcpus = types.get(&pool.instance_type).map_or(0, |kind| kind.vcpus);
        // The pool that is asked for last is the one that is named.
        let total = asked.entry(name).or_insert((0, index));
        *total = (total.0.saturating_add(vcpus.saturating_mul(pool.size.desired)), index);
    }
    for (name, (need, index)) in asked {
        let used = facts.vcpus.get(name).copied().unwrap_or(0);
        let path = format!("pools[{index}].size.desired");
        problems.extend(exceeded(facts, name, "vCPUs", (need, used), &path));
    }
    if let NetworkSpec::Own(network) = &spec.network {
        let addresses = match network.nat {
            Nat::One => 1,
            Nat::PerZone => u32::try_from(network.zones.count()).unwrap_or(u32::MAX),
            Nat::None => 0,
        };
        problems.extend(exceeded(facts, VPCS, "VPCs", (1, facts.vpcs), "network"));
        let need = (addresses, facts.addresses);
        problems.extend(exceeded(facts, ADDRESSES, "addresses", need, "network.nat"));
    }
    problems
}

fn exceeded(
    facts: &QuotaFacts,
    name: &str,
    unit: &str,
    (need, used): (u32, u32),
    path: &str,
) -> Option<Problem> {
    let Quota { service, code, value } = facts.quotas.get(name)?;
    let wanted = need.saturating_add(used);
    (need > 0 && f64::from(wanted) > *value).then(|| {
        let message = format!(
            "the quota `{name}` allows {value} {unit}; others use {used}, the fleet asks for {need}: \
             `aws service-quotas request-service-quota-increase --service-code {service} \
             --quota-code {code} --desired-value {wanted}`"
        );
        Problem::new(path, message)
    })
}

/// Asks what is allowed and what is used. What these credentials may not read stays unknown.
///
/// # Errors
/// When AWS does not answer.
pub async fn look(clients: &Clients, fleet: &str) -> Result<QuotaFacts, AwsError> {
    let mut quotas = BTreeMap::new();
    for service in ["ec2", "vpc"] {
        match list(clients, service).await {
            Ok(found) => quotas.extend(found),
            Err(error) if error.is_denied() => {}
            // Service Quotas has an endpoint of its own, which a closed network need not have.
            Err(error @ AwsError::Unreachable { .. }) => {
                let unasked = Some(ErrorChain(&error).to_string());
                return Ok(QuotaFacts { unasked, ..QuotaFacts::default() });
            }
            Err(error) => return Err(error),
        }
    }
    if quotas.is_empty() {
        return Ok(QuotaFacts::default());
    }
    let foreign = |tags: &[aws_sdk_ec2::types::Tag]| tag_of(tags, TAG_FLEET) != Some(fleet);
    let living = Filter::builder().name("instance-state-name").values("pending").values("running");
    let found = clients.ec2.describe_instances().filters(living.build());
    let found = found.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| "list the instances that run".to_owned())?;
    let mut vcpus = BTreeMap::new();
    for instance in found.iter().flat_map(|reservation| reservation.instances()) {
        if foreign(instance.tags()) {
            count(instance, &mut vcpus);
        }
    }
    let vpcs = clients.ec2.describe_vpcs().into_paginator().items().send().try_collect().await;
    let vpcs = vpcs.attempted(|| "list the VPCs".to_owned())?;
    let addresses = clients.ec2.describe_addresses().send().await;
    let addresses = addresses.attempted(|| "list the elastic addresses".to_owned())?;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(QuotaFacts {
        quotas,
        unasked: None,
        vcpus,
        vpcs: number(vpcs.iter().filter(|vpc| foreign(vpc.tags())).count()),
        addresses: number(addresses.addresses().iter().filter(|a| foreign(a.tags())).count()),
    })
}

fn count(instance: &Instance, vcpus: &mut BTreeMap<String, u32>) {
    let kind = instance.instance_type().map(|kind| kind.as_str()).unwrap_or_default();
    let spot = instance.instance_lifecycle().is_some_and(|cycle| cycle.as_str() == "spot");
    let block = instance.instance_lifecycle().is_some_and(|c| c.as_str() == "capacity-block");
    let Some(name) = quota_of(kind, spot).filter(|_| !block) else { return };
    let cores = instance.cpu_options().map_or(0, |options| {
        options.core_count().unwrap_or(0) * options.threads_per_core().unwrap_or(1)
    });
    *vcpus.entry(name.to_owned()).or_default() += cores.unsigned_abs();
}

async fn list(clients: &Clients, service: &str) -> Result<BTreeMap<String, Quota>, AwsError> {
    let quotas = Service::of(clients, "servicequotas").briefly();
    let what = || format!("list the quotas of `{service}`");
    let mut found = BTreeMap::new();
    let mut token = Value::Null;
    loop {
        let mut body = json!({"ServiceCode": service, "MaxResults": 100});
        if !token.is_null() {
            body["NextToken"] = token;
        }
        let answer = quotas.json("ServiceQuotasV20190624.ListServiceQuotas", &body, what).await?;
        for quota in answer["Quotas"].as_array().into_iter().flatten() {
            let (Some(name), Some(code), Some(value)) =
                (quota["QuotaName"].as_str(), quota["QuotaCode"].as_str(), quota["Value"].as_f64())
            else {
                continue;
            };
            let quota = Quota { service: service.to_owned(), code: code.to_owned(), value };
            found.insert(name.to_owned(), quota);
        }
        token = answer["NextToken"].clone();
        if token.as_str().is_none_or(str::is_empty) {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_type_counts_under_its_family() {
        let p = "Running On-Demand P instances";
        for (kind, spot, wanted) in [
            ("p5.48xlarge", false, Some(p)),
            ("p6-b200.48xlarge", false, Some(p)),
            ("g6e.xlarge", false, Some("Running On-Demand G and VT instances")),
            ("gr6.4xlarge", true, Some("All G and VT Spot Instance Requests")),
            ("p4d.24xlarge", true, Some("All P4, P3 and P2 Spot Instance Requests")),
            ("p5en.48xlarge", true, Some(SPOT_P5)),
            ("m6i.large", false, Some(FAMILIES[0].1)),
            ("im4gn.large", false, Some(FAMILIES[0].1)),
            ("trn1.32xlarge", false, Some("Running On-Demand Trn instances")),
            ("u-12tb1.112xlarge", false, None),
        ] {
            assert_eq!(quota_of(kind, spot), wanted, "{kind}");
        }
    }

    fn spec(more: &str) -> FleetSpec {
        let text = format!(
            "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\n\
             agent: {{baked: true}}\nnetwork: {{zones: 3, nat: per-zone}}\npools:\n  - {{name: s, \
             class: system, instanceType: m6i.large, size: {{desired: 2}}}}\n  - {{name: h100, \
             class: gpu, instanceType: p5.48xlarge, size: {{desired: 4}}{more}}}\n"
        );
        crate::config::parse(&text, "fleet.yaml").unwrap()
    }

    fn said(more: &str, p: f64, used: u32, addresses: u32) -> Vec<String> {
        let kind = |vcpus| TypeFacts { vcpus, ..TypeFacts::example() };
        let types = [("m6i.large".to_owned(), kind(2)), ("p5.48xlarge".to_owned(), kind(192))];
        let quota = |service: &str, code: &str, value| Quota {
            service: service.into(),
            code: code.into(),
            value,
        };
        let facts = QuotaFacts {
            quotas: [
                ("Running On-Demand P instances".to_owned(), quota("ec2", "L-417A185B", p)),
                (FAMILIES[0].1.to_owned(), quota("ec2", "L-1216C47A", 32.0)),
                (VPCS.to_owned(), quota("vpc", "L-F678F1CE", 5.0)),
                (ADDRESSES.to_owned(), quota("ec2", "L-0263D0A3", 5.0)),
            ]
            .into(),
            unasked: None,
            vcpus: [("Running On-Demand P instances".to_owned(), used)].into(),
            vpcs: 4,
            addresses,
        };
        short(&spec(more), &types.into(), &facts).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_quota_that_is_too_small_is_named_with_what_raises_it() {
        assert_eq!(said("", 768.0, 0, 2), Vec::<String>::new());
        let short = said("", 768.0, 192, 3);
        let wanted = "pools[1].size.desired: the quota `Running On-Demand P instances` allows 768 \
                      vCPUs; others use 192, the fleet asks for 768: `aws service-quotas \
                      request-service-quota-increase --service-code ec2 --quota-code L-417A185B \
                      --desired-value 960`";
        assert_eq!(short[0], wanted);
        assert!(short[1].starts_with("network.nat: the quota `EC2-VPC Elastic IPs` allows 5"));
        // A block is paid beforehand and counts under none; an unknown quota is no problem.
        let block = ", capacity: capacity-block, reservation: cr-0123456789abcdef0";
        assert_eq!(said(block, 0.0, 0, 2), Vec::<String>::new());
        assert_eq!(said(", capacity: spot", 0.0, 0, 2), Vec::<String>::new());
    }
}
