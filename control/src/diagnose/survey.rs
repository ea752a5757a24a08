//! The whole fleet in few calls: instances by tag, reports by name, one list of nodes, and the
//! console only of instances that nothing else speaks for.
//!
//! Only the list of instances must succeed; what else cannot be read becomes `Unknown`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ec2::types::{Filter, Instance, InstanceType};
use aws_sdk_ssm::types::ParameterStringFilter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::agent_config::GpuOffer::{self, Dra};
use contract::names::{
    TAG_FLEET, TAG_GPU_OFFER, TAG_JOIN, TAG_LAYER, TAG_POOL, report_parameter_prefix,
};
use contract::{ErrorChain, JoinReport, dra};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use super::facts::{Author, ConsoleFacts, InstanceFacts, Known, NodeEvidence, ReportFacts};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::kube::{Cluster, NodeFacts};

/// Names per GetParameters, which is what Parameter Store takes.
const NAMES_PER_CALL: usize = 10;
/// Consoles read in one survey: more than this silent at once have one cause, and it shows in these.
const CONSOLES: usize = 20;

/// Everything that the fleet's nodes say, by channel.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The evidence on each instance, gone ones included.
    pub nodes: Vec<NodeEvidence>,
    /// What could not be read, for the foot of a screen.
    pub unknowns: Vec<String>,
}

/// Looks at every instance of a fleet.
///
/// # Errors
/// When EC2 does not answer: without the list of instances there is nothing to say.
pub async fn survey(
    clients: &Clients,
    cluster: Option<&Cluster>,
    fleet: &str,
) -> Result<Survey, AwsError> {
    let (instances, reports, nodes) =
        tokio::join!(instances(clients, fleet), reports(clients, fleet), nodes(cluster));
    let instances = instances?;
    let gpus = Known::of(gpu_counts(clients, &instances).await);
    let slices = slices(cluster, &instances).await;
    let reports = Known::of(reports);

    let mut unknowns: Vec<String> =
        [reports.why_unknown(), nodes.why_unknown(), gpus.why_unknown(), slices.why_unknown()]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
    unknowns.sort();
    let registered = by_instance(nodes.get().map_or(&[], Vec::as_slice));
    let node_of = |instance: &InstanceFacts| registered.get(instance.id.as_str()).copied();
    let mut evidence: Vec<NodeEvidence> = instances
        .into_iter()
        .map(|instance| NodeEvidence {
            slices: each(&slices, |all| {
                let node = node_of(&instance).filter(|_| instance.offer == Dra)?;
                let (capacity, allocatable) = dra::gpus(all, &node.name);
                (capacity > 0).then_some(allocatable)
            }),
            node: each(&nodes, |_| node_of(&instance).cloned()),
            report: each(&reports, |all| all.get(&instance.id).cloned()),
            console: Known::Known(None),
            gpus_expected: gpus.get().and_then(|all| all.get(&instance.instance_type).copied()),
            instance,
        })
        .collect();
    read_consoles(clients, &mut evidence).await;
    Ok(Survey { nodes: evidence, unknowns })
}

fn by_instance(nodes: &[NodeFacts]) -> HashMap<&str, &NodeFacts> {
    nodes.iter().filter_map(|node| Some((node.instance_id()?, node))).collect()
}

/// The cluster's ResourceSlices, where a live instance offers its GPUs by them.
async fn slices(cluster: Option<&Cluster>, instances: &[InstanceFacts]) -> Known<Vec<Value>> {
    let by_slices = |one: &InstanceFacts| one.is_live() && one.offer == Dra;
    match cluster.filter(|_| instances.iter().any(by_slices)) {
        Some(cluster) => Known::of(cluster.resource_slices().await),
        None => Known::Known(Vec::new()),
    }
}

async fn read_consoles(clients: &Clients, evidence: &mut [NodeEvidence]) {
    let mut reads = JoinSet::new();
    let silent = evidence.iter().enumerate().filter(|(_, one)| is_silent(one)).take(CONSOLES);
    for (index, one) in silent {
        let (clients, id) = (clients.clone(), one.instance.id.clone());
        reads.spawn(async move { (index, Known::of(console(&clients, &id).await.map(Some))) });
    }
    while let Some(read) = reads.join_next().await {
        if let Ok((index, read)) = read {
            evidence[index].console = read;
        }
    }
}

/// Whether nothing but its console can speak for an instance.
fn is_silent(evidence: &NodeEvidence) -> bool {
    evidence.instance.is_live()
        && evidence.node.present().is_none()
        && evidence.report.present().is_none()
        && evidence.instance.join_tag.is_none()
}

fn each<T, U>(known: &Known<T>, one: impl FnOnce(&T) -> Option<U>) -> Known<Option<U>> {
    match known {
        Known::Known(all) => Known::Known(one(all)),
        Known::Unknown(why) => Known::Unknown(why.clone()),
    }
}

async fn nodes(cluster: Option<&Cluster>) -> Known<Vec<NodeFacts>> {
    match cluster {
        Some(cluster) => Known::of(cluster.nodes(None).await),
        None => Known::Unknown("could not list the nodes: the cluster does not answer yet".into()),
    }
}

/// The fleet's instances, gone ones included as long as EC2 remembers them.
async fn instances(clients: &Clients, fleet: &str) -> Result<Vec<InstanceFacts>, AwsError> {
    let filter = Filter::builder().name(format!("tag:{TAG_FLEET}")).values(fleet).build();
    let mut pages = clients.ec2.describe_instances().filters(filter).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.attempted(|| format!("list the instances of fleet `{fleet}`"))?;
        let instances = page.reservations().iter().flat_map(|r| r.instances());
        found.extend(instances.filter_map(instance_facts));
    }
    Ok(found)
}

fn instance_facts(instance: &Instance) -> Option<InstanceFacts> {
    let tag = |key: &str| {
        instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
    };
    let launched = instance.launch_time()?;
    let reason = instance.state_reason().and_then(|reason| {
        let message = reason.message()?;
        // Most messages begin with their code.
        Some(match reason.code() {
            Some(code) if !message.contains(code) => format!("{message} ({code})"),
            _ => message.to_owned(),
        })
    });
    Some(InstanceFacts {
        id: instance.instance_id()?.to_owned(),
        instance_type: instance.instance_type()?.as_str().to_owned(),
        zone: instance.placement()?.availability_zone().unwrap_or_default().to_owned(),
        state: instance.state()?.name()?.as_str().to_owned(),
        state_reason: reason.or_else(|| {
            let text = instance.state_transition_reason()?;
            (!text.is_empty()).then(|| text.to_owned())
        }),
        launched: Timestamp::from_second(launched.secs()).ok()?,
        launch_index: instance.ami_launch_index().unwrap_or_default(),
        pool: tag(TAG_POOL).unwrap_or_default().to_owned(),
        layer: tag(TAG_LAYER).unwrap_or_default().to_owned(),
        offer: GpuOffer::of_tag(tag(TAG_GPU_OFFER)),
        join_tag: tag(TAG_JOIN).map(str::to_owned),
        profile_arn: instance
            .iam_instance_profile()
            .and_then(|profile| profile.arn())
            .map(str::to_owned),
    })
}

/// The fleet's reports by instance id: an index call that also says who wrote each, then the values.
async fn reports(clients: &Clients, fleet: &str) -> Result<HashMap<String, ReportFacts>, AwsError> {
    let filter = ParameterStringFilter::builder()
        .key("Name")
        .option("BeginsWith")
        .values(report_parameter_prefix(fleet))
        .build()
        .map_err(|error| AwsError::Unreachable {
            attempted: format!("list the reports of fleet `{fleet}`"),
            source: Box::new(error),
        })?;
    let mut pages =
        clients.ssm.describe_parameters().parameter_filters(filter).into_paginator().send();
    let mut authors = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.attempted(|| format!("list the reports of fleet `{fleet}`"))?;
        for parameter in page.parameters() {
            if let Some(name) = parameter.name() {
                authors.insert(name.to_owned(), parameter.last_modified_user().map(str::to_owned));
            }
        }
    }
    let names: Vec<String> = authors.keys().cloned().collect();
    let mut reports = HashMap::new();
    for chunk in names.chunks(NAMES_PER_CALL) {
        let answer = clients.ssm.get_parameters().set_names(Some(chunk.to_vec())).send().await;
        let answer = answer.attempted(|| format!("read the reports of fleet `{fleet}`"))?;
        for parameter in answer.parameters() {
            let (Some(name), Some(value)) = (parameter.name(), parameter.value()) else { continue };
            let author = authors.get(name).and_then(Option::as_deref);
            if let Some((instance, facts)) = report_facts(name, value, author) {
                reports.insert(instance, facts);
            }
        }
    }
    Ok(reports)
}

fn report_facts(name: &str, value: &str, author: Option<&str>) -> Option<(String, ReportFacts)> {
    let instance = name.rsplit('/').next()?.to_owned();
    match serde_json::from_str::<JoinReport>(value) {
        Ok(report) => {
            let author = Author::of(author, &instance);
            Some((instance, ReportFacts { report, author }))
        }
        Err(error) => {
            // One node's unreadable report must not hide the others.
            tracing::warn!(parameter = name, error = %ErrorChain(&error), "report is no join report");
            None
        }
    }
}

/// The last 64 KiB of an instance's serial console.
pub(super) async fn console(clients: &Clients, instance: &str) -> Result<ConsoleFacts, AwsError> {
    let output = clients
        .ec2
        .get_console_output()
        .instance_id(instance)
        .latest(true)
        .send()
        .await
        .attempted(|| format!("read the console of `{instance}`"))?;
    let bytes = STANDARD.decode(output.output().unwrap_or_default()).unwrap_or_default();
    Ok(ConsoleFacts::of(&String::from_utf8_lossy(&bytes)))
}

/// The number of GPUs of each instance type in use.
async fn gpu_counts(
    clients: &Clients,
    instances: &[InstanceFacts],
) -> Result<HashMap<String, u32>, AwsError> {
    let types: BTreeSet<&str> = instances.iter().map(|i| i.instance_type.as_str()).collect();
    if types.is_empty() {
        return Ok(HashMap::new());
    }
    let answer = clients
        .ec2
        .describe_instance_types()
        .set_instance_types(Some(types.into_iter().map(InstanceType::from).collect()))
        .send()
        .await
        .attempted(|| "ask how many GPUs the instance types have".to_owned())?;
    let counts = answer.instance_types().iter().filter_map(|described| {
        let gpus = described.gpu_info().map(|info| {
            info.gpus().iter().filter_map(|gpu| u32::try_from(gpu.count()?).ok()).sum()
        });
        Some((described.instance_type()?.as_str().to_owned(), gpus.unwrap_or(0)))
    });
    Ok(counts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_none_is_passed_over() {
        assert!(report_facts("/rollcall/prod/h100/i-0abc", "{}", None).is_none());
        let golden = include_str!("../../../contract/golden/join_report.json");
        let author = "arn:aws:sts::1:assumed-role/r/i-0abc";
        let (id, facts) = report_facts("/rollcall/prod/h100/i-0abc", golden, Some(author)).unwrap();
        assert_eq!((id.as_str(), facts.author), ("i-0abc", Author::Itself));
    }

    #[test]
    fn an_instance_is_read_with_its_tags() {
        use aws_sdk_ec2::primitives::DateTime;
        use aws_sdk_ec2::types::{InstanceState, InstanceStateName, Placement, StateReason, Tag};
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let instance = Instance::builder()
            .instance_id("i-0abc")
            .instance_type(InstanceType::P548xlarge)
            .placement(Placement::builder().availability_zone("us-east-1a").build())
            .state(InstanceState::builder().name(InstanceStateName::Terminated).build())
            .state_reason(
                StateReason::builder().code("Client.InternalError").message("KMS says no").build(),
            )
            .launch_time(DateTime::from_secs(1_795_204_800))
            .ami_launch_index(2)
            .tags(tag(TAG_POOL, "h100"))
            .tags(tag(TAG_JOIN, "failed GpuAbsent"))
            .build();
        let facts = instance_facts(&instance).unwrap();
        assert_eq!(facts.state_reason.as_deref(), Some("KMS says no (Client.InternalError)"));
        assert_eq!((facts.pool.as_str(), facts.launch_index), ("h100", 2));
        assert_eq!(facts.join_tag.as_deref(), Some("failed GpuAbsent"));
        assert!(!facts.is_live());
        assert_eq!(facts.launched.to_string(), "2026-11-20T20:00:00Z");
    }
}
