//! What pools become, on tables of fleet files.

use contract::Reason;
use contract::agent_config::{Enforce, GpuReset, OnAgentFault, Show, XidClass, XidRule};

use super::*;
use crate::aws::ec2::NetworkCard;
use crate::launch::reservation::ReservationFact;
use crate::stack::world::{IdentityGiven, Zone};
use crate::stack::{Given, Scope};

fn zone(letter: &str, number: u32) -> Zone {
    Zone { name: format!("eu-west-1{letter}"), id: format!("euw1-az{number}") }
}

/// A fleet on layers that are built, whose second pool has this beside name, class, type and size.
fn inputs(more: &str) -> Inputs {
    let text = format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\nagent: \
         {{baked: true}}\ntags: {{cost-center: research}}\npools:\n  - {{name: s, class: system, \
         instanceType: m6i.large, size: {{desired: 2}}}}\n  - {{name: h100, class: gpu, \
         instanceType: p5.48xlarge, size: {{desired: 4}}{more}}}\n"
    );
    let subnet = |id: &str, zone: Zone| SubnetGiven { id: id.into(), zone };
    Inputs {
        scope: Scope::example(),
        spec: crate::config::parse(&text, "fleet.yaml").unwrap(),
        artifact: None,
        given: Given {
            network: Some(NetworkGiven {
                vpc: "vpc-1".into(),
                public_subnets: vec![],
                private_subnets: vec![
                    subnet("subnet-a", zone("a", 3)),
                    subnet("subnet-b", zone("b", 1)),
                ],
                efa_group: Some("sg-efa".into()),
            }),
            identity: Some(IdentityGiven {
                cluster_role: "arn:c".into(),
                system_node_role: "arn:s".into(),
                gpu_node_role: "arn:g".into(),
            }),
            cluster: Some(ClusterFacts {
                name: "prod".into(),
                region: "eu-west-1".into(),
                arn: "arn:aws:eks:eu-west-1:111122223333:cluster/prod".into(),
                endpoint: "https://x.eks.amazonaws.com".into(),
                certificate_authority: "Y2E=".into(),
                version: "1.34".into(),
                service_cidr: "172.20.0.0/16".into(),
                security_group: "sg-cluster".into(),
                vpc: "vpc-1".into(),
                cluster_role_arn: "arn:c".into(),
                node_role_arns: vec![],
                oidc_issuer: String::new(),
                status: "ACTIVE".into(),
            }),
        },
    }
}

fn facts() -> PoolsFacts {
    let cards = (0..32).map(|index| NetworkCard { index, efa: true, efa_only: true });
    let p5 = TypeFacts { efa_devices: 32, network_cards: cards.collect(), ..TypeFacts::example() };
    let ends = Some("2026-12-01T11:30:00Z".to_owned());
    let reservation = ReservationFact { zone: zone("b", 1), ends, ..ReservationFact::default() };
    PoolsFacts {
        types: [("p5.48xlarge".to_owned(), p5)].into(),
        images: [("h100".to_owned(), "ami-1".to_owned())].into(),
        reservations: [("cr-0123456789abcdef0".to_owned(), reservation)].into(),
        ..PoolsFacts::default()
    }
}

fn pool(more: &str) -> Result<PoolWish, StackError> {
    desired(&inputs(more), Layer::Gpu, &facts()).map(|mut wishes| wishes.remove(0))
}

fn made(more: &str) -> Made {
    pool(more).unwrap().made.unwrap()
}

/// The configuration that its nodes' agents read out of their user data.
fn agent(made: &Made) -> AgentConfig {
    let parts = made.data.user_data.split("\n\n");
    let cloud = parts.skip_while(|part| !part.contains("text/cloud-config")).nth(1).unwrap();
    let cloud = cloud.split("\n--").next().unwrap();
    let cloud: serde_yaml::Value = serde_yaml::from_str(cloud).unwrap();
    serde_yaml::from_str(cloud["write_files"][0]["content"].as_str().unwrap()).unwrap()
}

#[test]
fn what_a_pool_says_of_its_gpus_is_what_its_agents_are_told() {
    let policy = ", enforce: observe, enforceReasons: {GpuCountShort: gate}, onAgentFault: closed, \
        gpu: {minDriver: '580.95', cudaCanary: true, migDevices: 7, peermem: true, reset: on, \
        xids: {63: {class: replace, threshold: 2, windowSeconds: 86400}, 43: {class: app}}, \
        showReasons: {ThermalSlowdown: condition, PcieErrors: event}}";
    let told = agent(&made(policy));
    assert_eq!(told.problems(), [""; 0]);
    assert_eq!((told.enforce, told.on_agent_fault), (Enforce::Observe, OnAgentFault::Closed));
    assert_eq!(told.enforce_reasons, [(Reason::GpuCountShort.into(), Enforce::Gate)].into());
    assert_eq!((told.min_driver.as_deref(), told.mig_devices), (Some("580.95"), Some(7)));
    assert!(told.cuda_canary && told.peermem);
    assert_eq!(told.gpu_reset, GpuReset::On);
    let replace = XidRule { class: XidClass::Replace, threshold: 2, window_seconds: Some(86_400) };
    let app = XidRule { class: XidClass::App, threshold: 1, window_seconds: None };
    assert_eq!(told.xids, [(63, replace), (43, app)].into());
    let shown = [(Reason::ThermalSlowdown, Show::Condition), (Reason::PcieErrors, Show::Event)];
    assert_eq!(told.show_reasons, shown.map(|(reason, show)| (reason.into(), show)).into());
    // Every value of it says where it comes from.
    let text = made(policy).data.user_data;
    for part in crate::user_data::explain::explain(&text) {
        for (path, value, source) in part.values {
            assert!(!path.is_empty() && !source.is_empty(), "{path} = {value} comes from nowhere");
        }
    }
    // A pool that says nothing tells nothing.
    let plain = agent(&made(""));
    let nothing = AgentConfig { gpus: plain.gpus.clone(), ..AgentConfig::new("prod", "h100") };
    assert_eq!(plain, AgentConfig { pool_size: 4, ..nothing });
}

#[test]
fn a_pool_with_efa_has_every_card_and_its_group_and_tells_the_agent() {
    let plain = made("");
    assert_eq!((plain.data.interfaces.len(), plain.data.security_groups.len()), (0, 1));
    assert!(!plain.data.user_data.contains("efaDevices"), "{}", plain.data.user_data);
    let efa = made(", efa: true");
    assert_eq!(efa.data.interfaces.len(), 32);
    assert_eq!(efa.data.security_groups, ["sg-cluster", "sg-efa"]);
    assert!(efa.data.user_data.contains("efaDevices: 32"), "{}", efa.data.user_data);
    assert_ne!(efa.spec, plain.spec, "its nodes are made from something else");
    // No placement group comes along.
    assert_eq!(pool(", efa: true").unwrap().placement_group, None);
    // Before the group is made, nothing more is known.
    let mut early = inputs(", efa: true");
    early.given.network.as_mut().unwrap().efa_group = None;
    assert_eq!(desired(&early, Layer::Gpu, &facts()).unwrap()[0].made, None);
}

#[test]
fn nodes_come_up_in_the_zones_that_are_meant_and_no_other() {
    let all = ["subnet-a", "subnet-b"];
    let reserved = "reservation: cr-0123456789abcdef0";
    for (more, subnets) in [
        (String::new(), &all[..]),
        (", zones: [euw1-az3]".into(), &all[..1]),
        (", zones: [eu-west-1b]".into(), &all[1..]),
        (format!(", capacity: reserved, {reserved}"), &all[1..]),
        (format!(", capacity: capacity-block, {reserved}"), &all[1..]),
    ] {
        assert_eq!(made(&more).group.subnets, subnets, "{more}");
    }
    let error = pool(", zones: [euw1-az2]").unwrap_err().to_string();
    let there = "they lie in eu-west-1a (euw1-az3), eu-west-1b (euw1-az1)";
    assert_eq!(error, format!("pool `h100`: no private subnet lies in `euw1-az2`; {there}"));
}

#[test]
fn a_reservation_and_a_placement_group_are_in_the_template() {
    let reserved = ", capacity: capacity-block, reservation: cr-0123456789abcdef0";
    let block = made(reserved);
    let reservation = block.data.reservation.as_ref().unwrap();
    assert_eq!((reservation.id.as_str(), reservation.block), ("cr-0123456789abcdef0", true));
    assert!(block.data.user_data.contains("CAPACITY_BLOCK"), "{}", block.data.user_data);
    assert_eq!(agent(&block).capacity_ends.as_deref(), Some("2026-12-01T11:30:00Z"));
    assert_eq!(agent(&made(&reserved.replace("capacity-block", "reserved"))).capacity_ends, None);
    let near = pool(", placement: cluster, zones: [euw1-az3]").unwrap();
    assert_eq!(near.placement_group.as_deref(), Some("prod-h100"));
    assert_eq!(near.made.unwrap().data.placement_group.as_deref(), Some("prod-h100"));
    // A group of somebody else's is used and not made.
    let theirs = pool(", placementGroup: ultra").unwrap();
    assert_eq!(theirs.placement_group, None);
    assert_eq!(theirs.made.unwrap().data.placement_group.as_deref(), Some("ultra"));
}

#[test]
fn a_type_without_efa_is_refused() {
    let mut facts = facts();
    facts.types.get_mut("p5.48xlarge").unwrap().efa_devices = 0;
    let error = desired(&inputs(", efa: true"), Layer::Gpu, &facts).unwrap_err();
    assert_eq!(error.to_string(), "pool `h100`: `p5.48xlarge` has no EFA");
}

#[test]
fn what_costs_money_says_for_what() {
    for (more, wanted) in [("", "gpu"), (", tags: {workload-type: training}", "training")] {
        let made = made(more);
        assert_eq!(made.data.tags["workload-type"], wanted);
        assert_eq!(made.data.tags["cost-center"], "research");
        assert_eq!(made.group.tags, made.data.tags);
    }
}
