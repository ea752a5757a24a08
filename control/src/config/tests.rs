//! A fleet file's problems, each provoked by itself, and several at once.

use super::*;
use crate::config::network::{Endpoints, Nat, NetworkSpec, Zones};
use crate::config::spec::{AgentSource, Capacity, DevicePlugin, Placement, PoolClass};

const GOOD: &str = r#"
apiVersion: rollcall.dev/v1alpha1
kind: Fleet
name: prod
region: us-east-1
kubernetes: "1.34"
agent: {publish: true}
tags: {cost-center: research}
pools:
  - name: system
    class: system
    instanceType: m6i.large
    size: {desired: 2}
  - name: h100
    class: gpu
    instanceType: p5.48xlarge
    size: {min: 0, desired: 4, max: 8}
"#;

fn problems_of(text: &str) -> Vec<String> {
    match parse(text, "fleet.yaml") {
        Ok(_) => Vec::new(),
        Err(ConfigError::Problems { problems, .. }) => {
            problems.iter().map(ToString::to_string).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn defaults_are_resolved() {
    let spec = parse(GOOD, "fleet.yaml").unwrap();
    assert_eq!(spec.agent, AgentSource::Published);
    let NetworkSpec::Own(network) = &spec.network else { panic!("the fleet's own") };
    assert_eq!((&network.zones, network.nat), (&Zones::First(2), Nat::One));
    assert_eq!(
        (network.cidr.to_string().as_str(), network.endpoints),
        ("10.0.0.0/16", Endpoints::None)
    );
    let [system, gpu] = &spec.pools[..] else { panic!("two pools") };
    assert_eq!(system.class, PoolClass::System);
    assert_eq!((system.size.min, system.size.max, system.quorum), (2, 2, 2));
    assert_eq!((system.device_plugin, system.volume_gib), (DevicePlugin::None, 50));
    assert!(system.taints.is_empty());
    assert_eq!(gpu.device_plugin, DevicePlugin::Install);
    assert_eq!((&gpu.capacity, gpu.volume_gib, gpu.quorum), (&Capacity::OnDemand, 200, 4));
    assert_eq!((&gpu.placement, gpu.efa, gpu.zones.len()), (&Placement::Anywhere, false, 0));
    assert_eq!(gpu.taints[0].to_string(), "nvidia.com/gpu=true:NoSchedule");
    assert_eq!(gpu.labels["node-type"], "gpu");
    assert_eq!(gpu.labels["rollcall.dev/pool"], "h100");
}

#[test]
fn a_network_without_a_way_out_has_endpoints_for_everything() {
    let with = |network: &str| {
        let image = "devicePluginImage: 1.dkr.ecr.us-east-1.amazonaws.com/plugin:1";
        parse(&GOOD.replace("tags: {", &format!("network: {network}\n{image}\ntags: {{")), "x")
    };
    for (typed, wanted) in [
        ("{nat: none}", Endpoints::All),
        ("{nat: none, endpoints: all}", Endpoints::All),
        ("{endpoints: s3}", Endpoints::S3),
        ("{nat: per-zone, endpoints: all, zoneIds: [use1-az4, use1-az6]}", Endpoints::All),
    ] {
        let NetworkSpec::Own(network) = with(typed).unwrap().network else { panic!("{typed}") };
        assert_eq!(network.endpoints, wanted, "{typed}");
    }
}

/// What is replaced in the good file, by what, and a part of the problem that it makes.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("kind: Fleet", "kind: Flet", "kind: is `Flet`, must be `Fleet`"),
    ("v1alpha1", "v1", "apiVersion: is `rollcall.dev/v1`, must be `rollcall.dev/v1alpha1`"),
    ("name: prod", "nmae: prod", "nmae: is no known field; did you mean `name`?"),
    ("name: prod", "nmae: prod", "name: is missing"),
    ("name: prod", "name: Prod_1", "name: `Prod_1` must be lower-case letters"),
    ("name: prod", "name: 7", "name: must be text: write \"7\""),
    ("region: us-east-1", "region: useast1", "region: `useast1` is not of the form"),
    ("region: us-east-1", "region: xx-east-1", "region: `xx-east-1` lies in no AWS partition"),
    ("\"1.34\"", "1.30", "kubernetes: must be text: put it in quotes (YAML reads 1.3)"),
    ("\"1.34\"", "\"1.27\"", "kubernetes: `1.27` is too old"),
    ("\"1.34\"", "\"v1.34\"", "kubernetes: `v1.34` is not of the form `1.34`"),
    ("{publish: true}", "{}", "agent: must say one of"),
    ("{publish: true}", "{publish: true, baked: true}", "agent: must say one of"),
    ("{publish: true}", "{publish: yes please}", "agent.publish: must be `true` or `false`"),
    ("{publish: true}", "{url: 'http://x/a'}", "agent.url: `http://x/a` must begin with"),
    ("{publish: true}", "{url: 'https://x/a'}", "agent.sha256: is missing"),
    ("{publish: true}", "{url: 'https://x/a', sha256: AB}", "agent.sha256: must be 64"),
    ("{publish: true}", "{baked: true, sha256: ab}", "agent.sha256: goes with `agent.url`"),
    ("tags: {cost-center: research}", "tags: {'aws:x': y}", "tags.aws:x: `aws:` is reserved"),
    ("tags: {cost-center: research}", "tags: {Name: y}", "tags.Name: is set by `control`"),
    ("tags: {cost-center: research}", "tags: [a]", "tags: must be a mapping, is a list"),
    ("tags: {", "network: {zones: 1}\ntags: {", "network.zones: must be 2 to 6"),
    ("tags: {", "network: {cidr: 10.0.0.0}\ntags: {", "network.cidr: `10.0.0.0` is not of"),
    ("tags: {", "network: {cidr: 10.1.2.3/16}\ntags: {", "the network is `10.1.0.0/16`"),
    ("tags: {", "network: {cidr: 10.0.0.0/24}\ntags: {", "must have a prefix of 16 to 20"),
    ("tags: {", "network: {cidr: 11.0.0.0/16}\ntags: {", "is no private network"),
    ("tags: {", "network: {nat: two}\ntags: {", "network.nat: `two` is none of `one`"),
    (
        "tags: {",
        "network: {natt: one}\ntags: {",
        "network.natt: is no known field; did you mean `nat`",
    ),
    ("class: system", "class: apps", "pools: needs one pool of class `system`"),
    ("class: gpu", "class: cpu", "pools[1].class: `cpu` is none of"),
    ("class: gpu", "class: cpu", "did you mean `gpu`?"),
    ("name: h100", "name: system", "pools[1].name: `system` is taken by another pool"),
    ("name: h100", "name: lease", "pools[1].name: `lease` is reserved"),
    ("name: h100", "name: a-name-that-is-much-too-long", "pools[1].name: must have 1 to 24"),
    ("p5.48xlarge", "p5", "pools[1].instanceType: `p5` is not of the form"),
    ("{min: 0, desired: 4, max: 8}", "{min: 5, desired: 4}", "pools[1].size.min: 5 is more than"),
    ("{min: 0, desired: 4, max: 8}", "{desired: 4, max: 3}", "pools[1].size.max: 3 is less than"),
    ("{min: 0, desired: 4, max: 8}", "{desired: -1}", "pools[1].size.desired: must be a whole"),
    ("{min: 0, desired: 4, max: 8}", "{min: 1}", "pools[1].size.desired: is missing"),
    ("{min: 0, desired: 4, max: 8}", "4", "pools[1].size: must be a mapping, is a number"),
    ("{min: 0, desired: 4, max: 8}", "{desired: 0, max: 0}", "pools[1].size.max: must be at"),
    ("{desired: 2}", "{desired: 0, max: 1}", "pools[0].size.desired: a system pool needs"),
    ("{desired: 2}", "{desired: 2, minn: 1}", "pools[0].size.minn: is no known field"),
    ("class: gpu", "class: gpu\n    volumeGiB: 5", "pools[1].volumeGiB: must be 20 to 16384"),
    ("class: gpu", "class: gpu\n    image: latest", "pools[1].image: `latest` is not of"),
    ("class: gpu", "class: gpu\n    quorum: 5", "pools[1].quorum: 5 is more than"),
    ("class: gpu", "class: gpu\n    capacity: free", "pools[1].capacity: `free` is none of"),
    ("class: gpu", "class: gpu\n    gpu: {minDriver: 580}", "gpu.minDriver: must be text"),
    ("class: gpu", "class: gpu\n    gpu: {minDriver: new}", "gpu.minDriver: `new` is not of"),
    ("class: gpu", "class: gpu\n    gpu: {migDevices: 56}", "gpu.migDevices: must be 0 to 7"),
    ("class: gpu", "class: gpu\n    gpu: {xids: {0: {class: app}}}", "gpu.xids.0: `0` is no XID"),
    (
        "class: gpu",
        "class: gpu\n    gpu: {xids: {'63': {class: app}}}",
        "gpu.xids.63: must be a whole",
    ),
    ("class: gpu", "class: gpu\n    gpu: {xids: {63: {}}}", "gpu.xids.63.class: is missing"),
    (
        "class: gpu",
        "class: gpu\n    gpu: {xids: {63: {class: kill}}}",
        "xids.63.class: `kill` is none",
    ),
    (
        "class: gpu",
        "class: gpu\n    gpu: {xids: {63: {class: app, threshold: 0}}}",
        "pools[1].gpu.xids.63.threshold: must be at least 1",
    ),
    (
        "class: gpu",
        "class: gpu\n    gpu: {showReasons: {ThermalSlowdwn: event}}",
        "gpu.showReasons.ThermalSlowdwn: is no reason; did you mean `ThermalSlowdown`?",
    ),
    (
        "class: gpu",
        "class: gpu\n    enforceReasons: {GpuLost: never}",
        "pools[1].enforceReasons.GpuLost: `never` is none of",
    ),
    (
        "class: gpu",
        "class: gpu\n    enforceReasons: {ThermalSlowdown: gate}",
        "pools[1].enforceReasons.ThermalSlowdown: `ThermalSlowdown` closes no gate",
    ),
    (
        "class: system",
        "class: system\n    gpu: {cudaCanary: true}",
        "pools[0].gpu: goes with pools",
    ),
    (
        "class: gpu",
        "class: gpu\n    labels: {node-role.kubernetes.io/gpu: ''}",
        "pools[1].labels[\"node-role.kubernetes.io/gpu\"]: kubelet may not",
    ),
    ("class: gpu", "class: gpu\n    labels: {node-type: x}", "is set by `control`"),
    ("class: gpu", "class: gpu\n    labels: {a: 'b c'}", "the value must be at most 63"),
    (
        "class: gpu",
        "class: gpu\n    taints: [{key: a, effect: Never}]",
        "pools[1].taints[0].effect: `Never` is none of",
    ),
    (
        "class: system",
        "class: system\n    taints: [{key: a, effect: NoSchedule}]",
        "pools[0].taints: a system pool takes no taints",
    ),
    (
        "class: system",
        "class: system\n    devicePlugin: install",
        "pools[0].devicePlugin: goes with pools of class `gpu`",
    ),
];

#[test]
fn each_mistake_is_named_with_its_path() {
    for (from, to, wanted) in MISTAKES {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "`{from}` does not occur");
        let problems = problems_of(&text);
        assert!(problems.iter().any(|p| p.contains(wanted)), "{to}: {wanted}\n{problems:#?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let text = r#"
apiVersion: rollcall.dev/v1alpha1
kind: Fleet
name: prod
kubernetes: "1.34"
agent: {baked: true}
colour: red
pools:
  - {name: system, class: system, instanceType: m6i.large, size: {desired: 2}}
  - {name: h100, class: gpu, instancetype: p5.48xlarge, size: {min: 9, desired: 4}}
"#;
    let problems = problems_of(text);
    let wanted = [
        "colour: is no known field",
        "pools[1].instancetype: is no known field; did you mean `instanceType`?",
        "pools[1].instanceType: is missing",
        "pools[1].size.min: 9 is more than `desired`, 4",
    ];
    assert_eq!(problems, wanted);
}

#[test]
fn what_is_no_mapping_is_refused() {
    assert_eq!(problems_of("just text"), ["(document): must be a mapping, is text"]);
    assert_eq!(problems_of(""), ["(document): must be a mapping, is empty"]);
    assert!(problems_of("a: [").first().unwrap().contains("could not parse"));
}

#[test]
fn every_example_is_a_fleet() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(problems_of(&text), Vec::<String>::new(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 3, "{count} examples");
}
