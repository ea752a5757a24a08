//! The plan of the network, on worlds that are empty, complete, and damaged by hand.

use super::desired::{Desired, WayOut, desired};
use super::observe::{
    AddressFact, GatewayFact, NatFact, NetworkFacts, SubnetFact, Surplus, TableFact, VpcFact,
};
use super::plan::{Op, plan, teardown, wanted_tags};
use crate::config::FleetSpec;
use crate::stack::{Action, StackError, Step};

fn spec(network: &str) -> FleetSpec {
    let text = format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\nagent: \
         {{baked: true}}\nnetwork: {network}\ntags: {{cost-center: research}}\npools:\n  - {{name: \
         system, class: system, instanceType: m6i.large, size: {{desired: 2}}}}\n"
    );
    crate::config::parse(&text, "fleet.yaml").unwrap()
}

fn zones() -> Vec<String> {
    ["a", "b", "c"].map(|zone| format!("us-east-1{zone}")).into()
}

fn wishes(network: &str) -> Desired {
    desired(&spec(network), &zones()).unwrap()
}

/// The world after everything was done.
fn complete(wish: &Desired) -> NetworkFacts {
    let subnets: Vec<SubnetFact> = wish
        .subnets
        .iter()
        .map(|wish| SubnetFact {
            id: format!("id-{}", wish.name),
            name: wish.name.clone(),
            zone: wish.zone.clone(),
            cidr: wish.cidr.to_string(),
            free: 4000,
            public: wish.public,
        })
        .collect();
    let table = |wish: &super::desired::TableWish| TableFact {
        id: format!("rtb-{}", wish.name),
        name: wish.name.clone(),
        way_out: Some(match &wish.way_out {
            WayOut::Internet => "igw-1".to_owned(),
            WayOut::Nat(name) => format!("id-{name}"),
        }),
        blackhole: false,
        associations: wish
            .subnets
            .iter()
            .map(|name| (format!("as-{name}"), format!("id-{name}")))
            .collect(),
    };
    let nat = |wish: &super::desired::NatWish| NatFact {
        id: format!("id-{}", wish.name),
        name: wish.name.clone(),
        state: "available".into(),
    };
    let address = |wish: &super::desired::NatWish| AddressFact {
        id: format!("eip-{}", wish.name),
        name: wish.name.clone(),
    };
    let mut facts = NetworkFacts {
        zones: zones(),
        vpc: Some(VpcFact {
            id: "vpc-1".into(),
            cidr: wish.cidr.to_string(),
            dns_support: true,
            dns_hostnames: true,
        }),
        gateway: Some(GatewayFact { id: "igw-1".into(), vpc: Some("vpc-1".into()) }),
        addresses: wish.nats.iter().map(address).collect(),
        nats: wish.nats.iter().map(nat).collect(),
        tables: wish.tables.iter().map(table).collect(),
        subnets,
        ..NetworkFacts::default()
    };
    let tags = wanted_tags(wish, &facts).into_iter().map(|(id, _, tags)| (id, tags));
    facts.tags = tags.collect();
    facts
}

fn rows(steps: &[Step<Op>]) -> Vec<(Action, &str, &str)> {
    steps.iter().map(|step| (step.action, step.resource, step.name.as_str())).collect()
}

#[test]
fn an_empty_world_gets_everything() {
    let steps = plan(&wishes("{zones: 2}"), &NetworkFacts::default()).unwrap();
    assert!(steps.iter().all(|step| step.action == Action::Add));
    let count = |kind: &str| steps.iter().filter(|step| step.resource == kind).count();
    for (kind, wanted) in [
        ("vpc", 1),
        ("vpc dns", 1),
        ("internet gateway", 1),
        ("gateway attachment", 1),
        ("subnet", 4),
        ("address", 1),
        ("nat gateway", 1),
        ("route table", 2),
        ("default route", 2),
        ("route association", 4),
    ] {
        assert_eq!(count(kind), wanted, "{kind}");
    }
}

#[test]
fn one_nat_gateway_per_zone_means_one_private_table_each() {
    let steps = plan(&wishes("{zones: 3, nat: per-zone}"), &NetworkFacts::default()).unwrap();
    let count = |kind: &str| steps.iter().filter(|step| step.resource == kind).count();
    assert_eq!((count("nat gateway"), count("address"), count("route table")), (3, 3, 4));
}

#[test]
fn a_complete_world_gets_nothing() {
    for network in ["{zones: 2}", "{zones: 3, nat: per-zone, cidr: 172.16.0.0/20}"] {
        let wish = wishes(network);
        assert_eq!(rows(&plan(&wish, &complete(&wish)).unwrap()), [], "{network}");
    }
}

#[test]
fn what_comes_first_stands_in_an_earlier_stage() {
    let steps = plan(&wishes("{zones: 2}"), &NetworkFacts::default()).unwrap();
    let stage = |kind: &str| steps.iter().find(|step| step.resource == kind).unwrap().stage;
    for (first, then) in [
        ("vpc", "subnet"),
        ("vpc", "gateway attachment"),
        ("internet gateway", "gateway attachment"),
        ("gateway attachment", "nat gateway"),
        ("subnet", "nat gateway"),
        ("address", "nat gateway"),
        ("route table", "default route"),
        ("nat gateway", "default route"),
        ("route table", "route association"),
        ("subnet", "route association"),
    ] {
        assert!(stage(first) < stage(then), "{first} before {then}");
    }
}

#[test]
fn damage_is_mended_and_nothing_else_touched() {
    type Damage = fn(&mut NetworkFacts);
    type Rows = &'static [(Action, &'static str, &'static str)];
    let table: [(&str, Damage, Rows); 7] = [
        (
            "a tag taken off, and another's left alone",
            |facts| {
                let vpc = facts.tags.get_mut("vpc-1").unwrap();
                vpc.remove("cost-center");
                vpc.insert("somebody".into(), "else".into());
            },
            &[(Action::Change, "tags", "prod")],
        ),
        (
            "DNS off",
            |facts| facts.vpc.as_mut().unwrap().dns_hostnames = false,
            &[(Action::Change, "vpc dns", "prod")],
        ),
        (
            "gateway detached",
            |facts| facts.gateway.as_mut().unwrap().vpc = None,
            &[(Action::Add, "gateway attachment", "prod")],
        ),
        (
            "route table deleted",
            |facts| facts.tables.retain(|table| table.name != "prod-public"),
            &[
                (Action::Add, "route table", "prod-public"),
                (Action::Add, "default route", "prod-public"),
                (Action::Add, "route association", "prod-public-us-east-1a"),
                (Action::Add, "route association", "prod-public-us-east-1b"),
            ],
        ),
        (
            "NAT gateway deleted: its route leads to what is gone",
            |facts| facts.nats.clear(),
            &[
                (Action::Add, "nat gateway", "prod-nat-us-east-1a"),
                (Action::Change, "default route", "prod-private"),
            ],
        ),
        (
            "association taken off",
            |facts| facts.tables[1].associations.truncate(1),
            &[(Action::Add, "route association", "prod-private-us-east-1b")],
        ),
        (
            "a second subnet of the same name",
            |facts| facts.surplus.push(Surplus::Subnet("subnet-2".into())),
            &[(Action::Destroy, "subnet", "subnet-2")],
        ),
    ];
    let wish = wishes("{zones: 2}");
    for (what, damage, wanted) in table {
        let mut facts = complete(&wish);
        damage(&mut facts);
        assert_eq!(rows(&plan(&wish, &facts).unwrap()), wanted, "{what}");
    }
}

#[test]
fn tags_that_the_file_changes_are_put_on_everything_and_nothing_is_made_anew() {
    let facts = complete(&wishes("{zones: 2}"));
    let mut wish = wishes("{zones: 2}");
    wish.tags.insert("cost-center".into(), "training".into());
    let steps = plan(&wish, &facts).unwrap();
    // VPC, gateway, four subnets, address, NAT gateway, two tables.
    assert_eq!(steps.len(), 10);
    for step in &steps {
        let Op::Tag(ids, tags) = &step.op else { panic!("{step:?}") };
        let only: Vec<_> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!((ids.len(), only), (1, vec![("cost-center", "training")]), "{}", step.why);
    }
}

#[test]
fn other_addresses_are_a_conflict_before_anything_is_touched() {
    let facts = complete(&wishes("{cidr: 10.0.0.0/16}"));
    let error = plan(&wishes("{cidr: 10.1.0.0/16}"), &facts).unwrap_err();
    assert!(matches!(error, StackError::Conflict { .. }), "{error}");
    let few = desired(&spec("{zones: 4}"), &zones()).unwrap_err();
    assert!(few.to_string().contains("4 zones"), "{few}");
}

#[test]
fn everything_carries_the_fleets_tags() {
    let steps = plan(&wishes("{zones: 2}"), &NetworkFacts::default()).unwrap();
    let mut tagged = 0;
    for step in &steps {
        let (Op::CreateVpc(_, tags)
        | Op::CreateGateway(tags)
        | Op::CreateSubnet(_, tags)
        | Op::Allocate(_, tags)
        | Op::CreateNat(_, tags)
        | Op::CreateTable(_, tags)) = &step.op
        else {
            continue;
        };
        tagged += 1;
        assert_eq!(tags["Name"], step.name);
        assert_eq!(
            (tags["rollcall:fleet"].as_str(), tags["cost-center"].as_str()),
            ("prod", "research")
        );
        assert!(tags.contains_key("rollcall:spec") && tags["rollcall:layer"] == "network");
        let role = tags.keys().filter(|key| key.starts_with("kubernetes.io/role/")).count();
        assert_eq!(role, usize::from(step.resource == "subnet"), "{}", step.name);
    }
    assert_eq!(tagged, 10);
}

#[test]
fn teardown_takes_what_others_left_before_what_it_lies_in() {
    let mut facts = complete(&wishes("{zones: 2}"));
    facts.interfaces = vec![
        super::observe::InterfaceFact {
            id: "eni-1".into(),
            status: "available".into(),
            description: "aws-K8S-i-1".into(),
        },
        super::observe::InterfaceFact {
            id: "eni-2".into(),
            status: "in-use".into(),
            description: "Amazon EKS prod".into(),
        },
    ];
    facts.security_groups =
        vec![super::observe::SecurityGroupFact { id: "sg-1".into(), name: "k8s-elb".into() }];
    let steps = teardown(&facts);
    let place = |kind: &str| steps.iter().position(|step| step.resource == kind).unwrap();
    for (first, then) in [
        ("nat gateway", "address"),
        ("nat gateway", "subnet"),
        ("interface", "security group"),
        ("interface", "subnet"),
        ("security group", "vpc"),
        ("subnet", "vpc"),
        ("internet gateway", "vpc"),
        ("route table", "subnet"),
    ] {
        assert!(place(first) < place(then), "{first} before {then}");
    }
    assert!(steps.iter().all(|step| step.name != "eni-2"), "a service takes its own along");
    assert_eq!(teardown(&NetworkFacts::default()), []);
}
