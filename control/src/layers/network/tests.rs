//! The plan of the network, on worlds that are empty, complete, and damaged by hand.

mod existing;

use std::collections::BTreeMap;

use super::desired::{
    Desired, EndpointKind, EndpointWish, GroupWish, NatWish, Rule, SubnetWish, TableWish, WayOut,
    Wish, wish,
};
use super::observe::{
    AddressFact, EndpointFact, GatewayFact, NatFact, NetworkFacts, SecurityGroupFact, SubnetFact,
    Surplus, TableFact, VpcFact,
};
use super::plan::{Op, plan_own as plan, teardown, wanted_tags};
use crate::config::FleetSpec;
use crate::stack::world::Zone;
use crate::stack::{Action, StackError, Step};

fn spec(network: &str) -> FleetSpec {
    let text = format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\nagent: \
         {{baked: true}}\nnetwork: {network}\ndevicePluginImage: mirror/plugin:1\ntags: {{cost-center: research}}\npools:\n  - {{name: \
         system, class: system, instanceType: m6i.large, size: {{desired: 2}}}}\n"
    );
    crate::config::parse(&text, "fleet.yaml").unwrap()
}

fn zones() -> Vec<Zone> {
    let zone = |(letter, number)| Zone {
        name: format!("us-east-1{letter}"),
        id: format!("use1-az{number}"),
    };
    [("a", 4), ("b", 6), ("c", 1)].map(zone).into()
}

fn own(spec: &FleetSpec) -> Desired {
    match wish(spec, &zones()).unwrap() {
        Wish::Own(desired) => desired,
        Wish::Existing(_) => panic!("the fleet's own"),
    }
}

fn wishes(network: &str) -> Desired {
    own(&spec(network))
}

/// The services of a region, by all zones but that one.
fn services(without: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let zones: Vec<String> =
        zones().into_iter().map(|zone| zone.name).filter(|name| name != without).collect();
    let names = super::desired::INTERFACE_SERVICES.iter().chain(["s3"].iter());
    let named = |name: &&str| {
        ((*name).to_owned(), (format!("com.amazonaws.us-east-1.{name}"), zones.clone()))
    };
    names.map(named).collect()
}

fn table(wish: &TableWish) -> TableFact {
    TableFact {
        id: format!("rtb-{}", wish.name),
        name: wish.name.clone(),
        way_out: wish.way_out.as_ref().map(|way_out| match way_out {
            WayOut::Internet => "igw-1".to_owned(),
            WayOut::Nat(name) => format!("id-{name}"),
        }),
        blackhole: false,
        associations: wish
            .subnets
            .iter()
            .map(|name| (format!("as-{name}"), format!("id-{name}")))
            .collect(),
    }
}

fn endpoint(wish: &EndpointWish) -> EndpointFact {
    let (subnets, tables) = match &wish.kind {
        EndpointKind::Gateway(tables) => {
            (vec![], tables.iter().map(|name| format!("rtb-{name}")).collect())
        }
        EndpointKind::Interface { subnets, .. } => {
            (subnets.iter().map(|name| format!("id-{name}")).collect(), vec![])
        }
    };
    let (id, name) = (format!("vpce-{}", wish.name), wish.name.clone());
    EndpointFact { id, name, state: "available".into(), subnets, tables }
}

fn group(wish: &GroupWish) -> SecurityGroupFact {
    SecurityGroupFact {
        id: format!("sg-{}", wish.name),
        name: wish.name.clone(),
        ours: true,
        rules: wish.rules.clone(),
    }
}

fn subnet(wish: &SubnetWish) -> SubnetFact {
    SubnetFact {
        id: format!("id-{}", wish.name),
        name: wish.name.clone(),
        zone: wish.zone.clone(),
        cidr: wish.cidr.to_string(),
        free: 4000,
        public: wish.public,
    }
}

/// The world after everything was done.
fn complete(wish: &Desired) -> NetworkFacts {
    let nat = |wish: &NatWish| NatFact {
        id: format!("id-{}", wish.name),
        name: wish.name.clone(),
        state: "available".into(),
    };
    let address =
        |wish: &NatWish| AddressFact { id: format!("eip-{}", wish.name), name: wish.name.clone() };
    let mut facts = NetworkFacts {
        zones: zones(),
        vpc: Some(VpcFact {
            id: "vpc-1".into(),
            cidr: wish.cidr.to_string(),
            dns_support: true,
            dns_hostnames: true,
        }),
        gateway: wish
            .gateway
            .as_ref()
            .map(|_| GatewayFact { id: "igw-1".into(), vpc: Some("vpc-1".into()) }),
        security_groups: wish.groups.iter().map(group).collect(),
        endpoints: wish.endpoints.iter().map(endpoint).collect(),
        services: services(""),
        addresses: wish.nats.iter().map(address).collect(),
        nats: wish.nats.iter().map(nat).collect(),
        tables: wish.tables.iter().map(table).collect(),
        subnets: wish.subnets.iter().map(subnet).collect(),
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
    for network in [
        "{zones: 2}",
        "{zones: 3, nat: per-zone, cidr: 172.16.0.0/20}",
        "{zoneIds: [use1-az6, use1-az1], endpoints: all}",
        "{nat: none}",
    ] {
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
    let few = wish(&spec("{zones: 4}"), &zones()).unwrap_err();
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
    facts.security_groups = vec![SecurityGroupFact {
        id: "sg-1".into(),
        name: "k8s-elb".into(),
        ours: false,
        rules: vec![],
    }];
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

fn steps_of<'a>(steps: &'a [Step<Op>], kind: &str) -> Vec<&'a Step<Op>> {
    steps.iter().filter(|step| step.resource == kind).collect()
}

#[test]
fn zones_are_chosen_by_id_whatever_they_are_called_here() {
    let wish = wishes("{zoneIds: [use1-az6, use1-az1]}");
    let names: Vec<&str> = wish.subnets.iter().map(|subnet| subnet.zone.name.as_str()).collect();
    assert_eq!(names, ["us-east-1b", "us-east-1b", "us-east-1c", "us-east-1c"]);
    let error = super::desired::wish(&spec("{zoneIds: [use1-az6, use1-az9]}"), &zones());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "the region has no zone `use1-az9`; it has use1-az4, use1-az6, use1-az1");
}

#[test]
fn a_closed_network_has_no_way_out_and_an_endpoint_for_each_service() {
    let empty = NetworkFacts { services: services("us-east-1b"), ..NetworkFacts::default() };
    let wish = wishes("{nat: none}");
    let steps = plan(&wish, &empty).unwrap();
    for (kind, wanted) in [
        ("internet gateway", 0),
        ("nat gateway", 0),
        ("address", 0),
        ("default route", 0),
        ("subnet", 2),
        ("route table", 1),
        ("vpc endpoint", 11),
        ("security group", 1),
        ("security group rule", 1),
    ] {
        assert_eq!(steps_of(&steps, kind).len(), wanted, "{kind}");
    }
    let stage = |kind: &str| steps_of(&steps, kind)[0].stage;
    for before in ["subnet", "route table", "security group", "security group rule"] {
        assert!(stage(before) < stage("vpc endpoint"), "{before}");
    }
    let group = wish.groups.first().unwrap();
    assert_eq!(group.rules, [Rule::HttpsFrom("10.0.0.0/16".into())]);
    // A zone that does not offer a service is not missed; a table that was made again is.
    let mut facts = complete(&wish);
    facts.services = services("us-east-1b");
    for endpoint in &mut facts.endpoints {
        endpoint.subnets.retain(|subnet| !subnet.ends_with("us-east-1b"));
    }
    assert_eq!(rows(&plan(&wish, &facts).unwrap()), []);
    facts.tables[0].id = "rtb-new".into();
    facts.tags.insert("rtb-new".into(), facts.tags["rtb-prod-private"].clone());
    let again = plan(&wish, &facts).unwrap();
    assert_eq!(rows(&again), [(Action::Change, "vpc endpoint", "prod-s3")]);
    // And one that the region does not have is said before anything is made.
    facts.endpoints.clear();
    facts.services.remove("eks-auth");
    let refused = plan(&wish, &facts).unwrap_err().to_string();
    assert_eq!(refused, "the region offers no VPC endpoint for `eks-auth`");
}

#[test]
fn efa_gets_a_group_that_lets_everything_through_between_its_members() {
    let mut spec = spec("{zones: 2}");
    spec.pools[0].efa = true;
    let wish = own(&spec);
    let steps = plan(&wish, &NetworkFacts::default()).unwrap();
    let rules: Vec<&str> =
        steps_of(&steps, "security group rule").iter().map(|step| step.name.as_str()).collect();
    assert_eq!(rules, ["prod-efa: all from itself", "prod-efa: all to itself"]);
    // Somebody takes one of them out.
    let mut facts = complete(&wish);
    facts.security_groups[0].rules = vec![Rule::FromItself];
    let mended = plan(&wish, &facts).unwrap();
    assert_eq!(rows(&mended), [(Action::Add, "security group rule", "prod-efa: all to itself")]);
}
