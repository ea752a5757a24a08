//! One row per layer of the fleet, read live and cheaply: what `status` shows above the nodes. The
//! layers' own gates prove more; this says where to look.

use aws_sdk_ec2::types::Filter;
use contract::names::TAG_FLEET;
use serde::Serialize;

use super::facts::Known;
use super::pools::PoolFacts;
use super::{NodeState, NodeVerdict, Stage};
use crate::aws::eks::ClusterFacts;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::kube::{Cluster, DeploymentFacts};
use crate::stack::Layer;

/// How a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// As it should be.
    Ready,
    /// Under way.
    Building,
    /// Something in it is broken.
    Failed,
    /// There is none.
    Absent,
    /// It could not be read.
    Unknown,
}

/// One layer's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerRow {
    /// Which.
    pub layer: Layer,
    /// How it stands.
    pub state: LayerState,
    /// In a few words.
    pub detail: String,
}

/// What the rows are made of.
#[derive(Clone, Debug)]
pub struct LayerFacts {
    /// VPC, subnets and NAT gateways.
    pub network: Known<NetworkFacts>,
    /// Roles that exist, and roles that are named and do not.
    pub roles: Known<RoleFacts>,
    /// EKS's word for the cluster; none when there is none.
    pub cluster: Known<Option<String>>,
    /// Who the API server says that we are, or why it does not.
    pub identity: Known<String>,
    /// Add-ons and their states.
    pub addons: Known<Vec<(String, String)>>,
    /// CoreDNS.
    pub coredns: Known<Option<DeploymentFacts>>,
    /// The node groups.
    pub pools: Known<Vec<PoolFacts>>,
}

/// The network as far as a row needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// The fleet's own VPCs.
    pub vpcs: Vec<String>,
    /// Number of its subnets.
    pub subnets: usize,
    /// States of its NAT gateways.
    pub nat: Vec<String>,
}

/// Roles that something of the fleet names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleFacts {
    /// Those that IAM knows.
    pub present: Vec<String>,
    /// Those that it does not.
    pub missing: Vec<String>,
}

/// Reads what the rows need, side by side.
pub async fn read(
    clients: &Clients,
    cluster: Option<&Cluster>,
    facts: Option<&ClusterFacts>,
    fleet: &str,
) -> LayerFacts {
    let pools = super::pools::pools(clients, fleet).await;
    let mut named: Vec<String> = facts.iter().map(|f| f.cluster_role_arn.clone()).collect();
    named.extend(pools.iter().flatten().filter_map(|pool| pool.node_role.clone()));
    named.sort();
    named.dedup();
    let (network, roles, status, identity, addons, coredns) = tokio::join!(
        network(clients, fleet),
        roles(clients, &named),
        crate::aws::eks::cluster(clients, fleet),
        identity(cluster),
        addons(clients, fleet),
        coredns(cluster),
    );
    let status = status.map(|cluster| {
        cluster.and_then(|cluster| cluster.status().map(|status| status.as_str().to_owned()))
    });
    LayerFacts {
        network: Known::of(network),
        roles: Known::of(roles),
        cluster: Known::of(status),
        identity,
        addons: Known::of(addons),
        coredns,
        pools: Known::of(pools),
    }
}

async fn network(clients: &Clients, fleet: &str) -> Result<NetworkFacts, AwsError> {
    let ours = || Filter::builder().name(format!("tag:{TAG_FLEET}")).values(fleet).build();
    let vpcs = clients.ec2.describe_vpcs().filters(ours()).send().await;
    let subnets = clients.ec2.describe_subnets().filters(ours()).send().await;
    let nat = clients.ec2.describe_nat_gateways().filter(ours()).send().await;
    let nat = nat.attempted(|| "list the NAT gateways".into())?;
    Ok(NetworkFacts {
        vpcs: vpcs
            .attempted(|| "list the VPCs".into())?
            .vpcs()
            .iter()
            .filter_map(|vpc| vpc.vpc_id().map(str::to_owned))
            .collect(),
        subnets: subnets.attempted(|| "list the subnets".into())?.subnets().len(),
        nat: nat
            .nat_gateways()
            .iter()
            .filter_map(|nat| Some(nat.state()?.as_str().to_owned()))
            .filter(|state| state != "deleted")
            .collect(),
    })
}

async fn roles(clients: &Clients, arns: &[String]) -> Result<RoleFacts, AwsError> {
    let mut facts = RoleFacts::default();
    for arn in arns {
        let name = arn.rsplit('/').next().unwrap_or_default();
        let answer = clients.iam.get_role().role_name(name).send().await;
        match answer.attempted(|| format!("read the role `{name}`")) {
            Ok(_) => facts.present.push(name.to_owned()),
            Err(error) if error.is_not_found() => facts.missing.push(name.to_owned()),
            Err(error) => return Err(error),
        }
    }
    Ok(facts)
}

async fn identity(cluster: Option<&Cluster>) -> Known<String> {
    match cluster {
        // The row says already what was attempted: the cause is enough.
        Some(cluster) => Known::of(
            cluster.prove().await.map(|identity| identity.username).map_err(|error| *error.cause),
        ),
        None => Known::Unknown("it has no endpoint yet".into()),
    }
}

async fn addons(clients: &Clients, fleet: &str) -> Result<Vec<(String, String)>, AwsError> {
    let listed = clients.eks.list_addons().cluster_name(fleet).send().await;
    let listed = match listed.attempted(|| format!("list the add-ons of `{fleet}`")) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut addons = Vec::new();
    for name in listed.addons() {
        let answer = clients.eks.describe_addon().cluster_name(fleet).addon_name(name).send().await;
        let answer = answer.attempted(|| format!("describe the add-on `{name}`"))?;
        let status = answer.addon().and_then(|addon| addon.status()).map_or("", |s| s.as_str());
        addons.push((name.clone(), status.to_owned()));
    }
    Ok(addons)
}

async fn coredns(cluster: Option<&Cluster>) -> Known<Option<DeploymentFacts>> {
    match cluster {
        Some(cluster) => Known::of(cluster.deployment("kube-system", "coredns").await),
        None => Known::Known(None),
    }
}

/// The rows, bottom up.
#[must_use]
pub fn rows(facts: &LayerFacts, verdicts: &[NodeVerdict]) -> Vec<LayerRow> {
    Layer::ALL
        .into_iter()
        .map(|layer| {
            let (state, detail) = match layer {
                Layer::Network => network_row(&facts.network),
                Layer::Identity => identity_row(&facts.roles),
                Layer::Cluster => cluster_row(&facts.cluster, &facts.identity),
                Layer::Addons => addons_row(&facts.addons),
                Layer::System => system_row(facts, verdicts),
                Layer::Gpu => nodes_row(facts, verdicts, Layer::Gpu),
            };
            LayerRow { layer, state, detail }
        })
        .collect()
}

type Cell = (LayerState, String);

fn network_row(network: &Known<NetworkFacts>) -> Cell {
    let network = match network {
        Known::Unknown(why) => return (LayerState::Unknown, why.clone()),
        Known::Known(network) => network,
    };
    let Some(vpc) = network.vpcs.first() else {
        return (LayerState::Absent, "no VPC of the fleet's own".into());
    };
    let ready = network.nat.iter().filter(|state| *state == "available").count();
    let all = network.nat.len();
    let nat = match all {
        0 => "no NAT gateway".to_owned(),
        _ => format!("{ready} of {all} NAT available"),
    };
    let state = if ready == all { LayerState::Ready } else { LayerState::Building };
    (state, format!("{vpc}, {} subnets, {nat}", network.subnets))
}

fn identity_row(roles: &Known<RoleFacts>) -> Cell {
    match roles {
        Known::Unknown(why) => (LayerState::Unknown, why.clone()),
        Known::Known(roles) if !roles.missing.is_empty() => {
            (LayerState::Failed, format!("missing: {}", roles.missing.join(", ")))
        }
        Known::Known(roles) if roles.present.is_empty() => {
            (LayerState::Absent, "no role in use".into())
        }
        Known::Known(roles) => (LayerState::Ready, roles.present.join(", ")),
    }
}

fn cluster_row(status: &Known<Option<String>>, identity: &Known<String>) -> Cell {
    match (status, identity) {
        (Known::Unknown(why), _) => (LayerState::Unknown, why.clone()),
        (Known::Known(None), _) => (LayerState::Absent, "no cluster".into()),
        (Known::Known(Some(status)), Known::Known(username)) if status == "ACTIVE" => {
            let name = username.rsplit('/').next().unwrap_or_default();
            (LayerState::Ready, format!("ACTIVE, answers us as `{name}`"))
        }
        (Known::Known(Some(status)), Known::Unknown(why)) if status == "ACTIVE" => {
            (LayerState::Failed, format!("ACTIVE, but {why}"))
        }
        (Known::Known(Some(status)), _) if status == "FAILED" => {
            (LayerState::Failed, status.clone())
        }
        (Known::Known(Some(status)), _) => (LayerState::Building, status.clone()),
    }
}

fn addons_row(addons: &Known<Vec<(String, String)>>) -> Cell {
    let addons = match addons {
        Known::Unknown(why) => return (LayerState::Unknown, why.clone()),
        Known::Known(addons) if addons.is_empty() => {
            return (LayerState::Absent, "no add-on".into());
        }
        Known::Known(addons) => addons,
    };
    // CoreDNS belongs to the system layer: it cannot be ACTIVE before there is a node.
    let (mut ready, mut not) = (Vec::new(), Vec::new());
    for (name, status) in addons.iter().filter(|(name, _)| name != "coredns") {
        match status.as_str() {
            "ACTIVE" => ready.push(name.as_str()),
            status => not.push(format!("{name} {status}")),
        }
    }
    let failed = not.iter().any(|addon| addon.ends_with("FAILED") || addon.ends_with("DEGRADED"));
    match (not.is_empty(), failed) {
        (true, _) => (LayerState::Ready, ready.join(", ")),
        (false, true) => (LayerState::Failed, not.join(", ")),
        (false, false) => (LayerState::Building, not.join(", ")),
    }
}

fn system_row(facts: &LayerFacts, verdicts: &[NodeVerdict]) -> Cell {
    let (state, nodes) = nodes_row(facts, verdicts, Layer::System);
    let (dns_state, dns) = match &facts.coredns {
        Known::Unknown(_) => (LayerState::Unknown, "CoreDNS not known".into()),
        Known::Known(None) => (LayerState::Building, "no CoreDNS".into()),
        Known::Known(Some(dns)) => {
            let whole = dns.available >= dns.desired && dns.desired > 0;
            let state = if whole { LayerState::Ready } else { LayerState::Building };
            (state, format!("CoreDNS {} of {}", dns.available, dns.desired))
        }
    };
    if state == LayerState::Absent {
        return (state, nodes);
    }
    let state = if state == LayerState::Ready { dns_state } else { state };
    (state, format!("{nodes}, {dns}"))
}

fn nodes_row(facts: &LayerFacts, verdicts: &[NodeVerdict], layer: Layer) -> Cell {
    let nodes: Vec<&NodeVerdict> =
        verdicts.iter().filter(|verdict| belongs(verdict, layer)).collect();
    let is_of_layer =
        |pool: &&PoolFacts| (pool.class.as_deref() == Some("system")) == (layer == Layer::System);
    let pools: Vec<&PoolFacts> =
        facts.pools.get().into_iter().flatten().filter(is_of_layer).collect();
    let desired: usize = pools.iter().map(|pool| pool.desired as usize).sum();
    if nodes.is_empty() && pools.is_empty() {
        return match facts.pools.why_unknown() {
            Some(why) => (LayerState::Unknown, why.to_owned()),
            None => (LayerState::Absent, "no pool".into()),
        };
    }
    let count = |state| nodes.iter().filter(|node| node.state == state).count();
    let (ready, failed) = (count(NodeState::Ready), count(NodeState::Failed));
    let wanted = desired.max(nodes.len());
    let mut detail = format!("{ready} of {wanted} ready");
    let unknown = nodes.iter().filter(|node| node.stage == Stage::Unknown).count();
    let joining = count(NodeState::Joining) - unknown;
    for (number, word) in [(failed, "failed"), (joining, "joining"), (unknown, "unknown")] {
        if number > 0 {
            detail += &format!(", {number} {word}");
        }
    }
    let missing = wanted - nodes.len();
    if missing > 0 {
        detail += &format!(", {missing} not launched");
    }
    let issue = pools.iter().find_map(|pool| pool.issues.first());
    if let Some(issue) = issue.filter(|_| missing > 0) {
        detail += &format!(": {issue}");
    }
    let state = match (ready == wanted, failed > 0) {
        (true, _) => LayerState::Ready,
        (false, false) if unknown > 0 => LayerState::Unknown,
        (false, true) => LayerState::Failed,
        (false, false) => LayerState::Building,
    };
    (state, detail)
}

/// The tag says which layer; a node from before the tag is judged by its GPUs.
fn belongs(verdict: &NodeVerdict, layer: Layer) -> bool {
    let own = match verdict.layer.as_str() {
        "system" => Layer::System,
        _ => Layer::Gpu,
    };
    own == layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{at, failed, proven};
    use crate::diagnose::verdict_of;
    use contract::{Phase, Reason};

    fn facts() -> LayerFacts {
        LayerFacts {
            network: Known::Known(NetworkFacts {
                vpcs: vec!["vpc-1".into()],
                subnets: 4,
                nat: vec!["available".into()],
            }),
            roles: Known::Known(RoleFacts {
                present: vec!["prod-cluster".into()],
                missing: vec![],
            }),
            cluster: Known::Known(Some("ACTIVE".into())),
            identity: Known::Known("arn:aws:iam::1:user/me".into()),
            addons: Known::Known(vec![
                ("vpc-cni".into(), "ACTIVE".into()),
                ("coredns".into(), "DEGRADED".into()),
            ]),
            coredns: Known::Known(Some(DeploymentFacts {
                desired: 2,
                available: 2,
                current: true,
            })),
            pools: Known::Known(vec![PoolFacts {
                name: "h100".into(),
                class: Some("gpu".into()),
                desired: 3,
                ..PoolFacts::default()
            }]),
        }
    }

    fn row(facts: &LayerFacts, layer: Layer) -> (LayerState, String) {
        let node = failed(Reason::GpuCountShort, Phase::Drivers);
        let verdicts = [verdict_of(&proven(), 0, at(90)), verdict_of(&node, 1, at(90))];
        let row = rows(facts, &verdicts).into_iter().find(|row| row.layer == layer).unwrap();
        (row.state, row.detail)
    }

    #[test]
    fn each_layer_says_how_it_stands() {
        use LayerState::{Absent, Failed, Ready};
        for (layer, state, detail) in [
            (Layer::Network, Ready, "vpc-1, 4 subnets, 1 of 1 NAT available"),
            (Layer::Identity, Ready, "prod-cluster"),
            (Layer::Cluster, Ready, "ACTIVE, answers us as `me`"),
            (Layer::Addons, Ready, "vpc-cni"),
            (Layer::System, Absent, "no pool"),
            (Layer::Gpu, Failed, "1 of 3 ready, 1 failed, 1 not launched"),
        ] {
            assert_eq!(row(&facts(), layer), (state, detail.to_owned()));
        }
    }

    #[test]
    fn what_is_broken_or_unread_is_told_apart() {
        let mut facts = facts();
        facts.network = Known::Unknown("could not list the VPCs: denied".into());
        facts.roles =
            Known::Known(RoleFacts { present: vec![], missing: vec!["prod-gpu-node".into()] });
        facts.identity = Known::Unknown("could not connect".into());
        facts.addons = Known::Known(vec![("vpc-cni".into(), "CREATING".into())]);
        assert_eq!(row(&facts, Layer::Network).0, LayerState::Unknown);
        assert_eq!(
            row(&facts, Layer::Identity),
            (LayerState::Failed, "missing: prod-gpu-node".into())
        );
        assert_eq!(
            row(&facts, Layer::Cluster),
            (LayerState::Failed, "ACTIVE, but could not connect".into())
        );
        assert_eq!(row(&facts, Layer::Addons), (LayerState::Building, "vpc-cni CREATING".into()));
        facts.cluster = Known::Known(None);
        assert_eq!(row(&facts, Layer::Cluster).0, LayerState::Absent);
    }
}
