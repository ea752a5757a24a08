//! Networks that are there already: what fits, what is put into them, what is refused.

use super::super::desired::{Adopted, INTERFACE_SERVICES, Wish, wish};
use super::super::observe::existing::{ExistingFacts, ExistingSubnet, cluster_tag};
use super::super::observe::{NetworkFacts, VpcFact};
use super::super::plan::{plan, teardown};
use super::{rows, spec, zones};
use crate::stack::Action;

const EXISTING: &str = "{existing: {vpc: vpc-00000001, privateSubnets: [subnet-0000000a, \
                        subnet-0000000b], publicSubnets: [subnet-0000000c]}}";

fn adopted(efa: bool) -> Adopted {
    let mut spec = spec(EXISTING);
    spec.pools[0].efa = efa;
    match wish(&spec, &zones()).unwrap() {
        Wish::Existing(adopted) => adopted,
        Wish::Own(_) => panic!("an existing one"),
    }
}

/// An existing network that fits.
fn fitting() -> NetworkFacts {
    let zones = zones();
    let subnet = |letter: &str, zone: usize, way_out: &str| ExistingSubnet {
        id: format!("subnet-0000000{letter}"),
        vpc: "vpc-00000001".into(),
        zone: zones[zone].clone(),
        free: 4000,
        way_out: Some(way_out.into()),
        blackhole: false,
        tags: vec![],
    };
    NetworkFacts {
        zones: zones.clone(),
        existing: Some(ExistingFacts {
            vpc: Some(VpcFact {
                id: "vpc-00000001".into(),
                cidr: "10.9.0.0/16".into(),
                dns_support: true,
                dns_hostnames: true,
            }),
            subnets: vec![
                subnet("a", 0, "nat-1"),
                subnet("b", 1, "tgw-1"),
                subnet("c", 0, "igw-1"),
            ],
            endpoints: vec![],
        }),
        ..NetworkFacts::default()
    }
}

#[test]
fn an_existing_network_gets_a_tag_and_the_group_that_efa_needs_and_no_more() {
    let planned = |efa, facts: &NetworkFacts| plan(&Wish::Existing(adopted(efa)), facts).unwrap();
    let tag = "subnet-0000000a, subnet-0000000b, subnet-0000000c";
    assert_eq!(rows(&planned(false, &fitting())), [(Action::Change, "cluster tag", tag)]);
    let mut facts = fitting();
    for subnet in &mut facts.existing.as_mut().unwrap().subnets {
        subnet.tags.push(cluster_tag("prod"));
    }
    assert_eq!(rows(&planned(false, &facts)), []);
    let kinds: Vec<&str> = planned(true, &facts).iter().map(|step| step.resource).collect();
    assert_eq!(kinds, ["security group", "security group rule", "security group rule"]);
    // On the way down nothing of it is named: only the tag goes.
    facts.shared = vec!["subnet-0000000a".into()];
    facts.existing = None;
    assert_eq!(rows(&teardown(&facts)), [(Action::Destroy, "cluster tag", "subnet-0000000a")]);
}

#[test]
fn an_existing_network_in_which_no_node_would_join_is_refused_with_all_reasons() {
    type Change = fn(&mut ExistingFacts);
    let cases: [(Change, &str); 10] = [
        (|f| f.vpc = None, "there is no VPC `vpc-00000001` in this region"),
        (
            |f| f.vpc.as_mut().unwrap().dns_hostnames = false,
            "DNS support or DNS host names are off",
        ),
        (|f| drop(f.subnets.remove(1)), "there is no subnet `subnet-0000000b`"),
        (|f| f.subnets[1].vpc = "vpc-2".into(), "the subnet `subnet-0000000b` lies in `vpc-2`"),
        (|f| f.subnets[1].zone = zones()[0].clone(), "lie in one zone (use1-az4); EKS needs two"),
        (|f| f.subnets[0].way_out = Some("igw-1".into()), "leads straight to an internet gateway"),
        (|f| f.subnets[0].blackhole = true, "leads to something that is gone"),
        (|f| f.subnets[2].way_out = None, "`subnet-0000000c` has no default route to an internet"),
        (
            |f| f.subnets[0].way_out = None,
            "`subnet-0000000a` has no default route, and the VPC no endpoints for ec2, ecr.api, \
             ecr.dkr, sts, ssm, ssmmessages, ec2messages, eks, eks-auth, logs, s3",
        ),
        (
            |f| {
                f.subnets[0].way_out = None;
                let all = INTERFACE_SERVICES.iter().map(|s| (*s).to_owned());
                f.endpoints = all.collect();
            },
            "the VPC no endpoints for s3",
        ),
    ];
    for (change, said) in cases {
        let mut facts = fitting();
        change(facts.existing.as_mut().unwrap());
        let error = plan(&Wish::Existing(adopted(false)), &facts).unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    let mut facts = fitting();
    facts.vpc = facts.existing.as_ref().unwrap().vpc.clone();
    let error = plan(&Wish::Existing(adopted(false)), &facts).unwrap_err();
    assert!(error.to_string().contains("has a VPC of its own"), "{error}");
}
