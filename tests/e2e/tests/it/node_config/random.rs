//! Random NodeConfigs, the same for the same seed.

use serde_json::{Map, Value, json};

use super::documents::{Case, HEAD};

/// xorshift64*: enough to choose by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % sides
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.roll(of.len() as u64)).unwrap();
        of[at].clone()
    }

    fn maybe(&mut self, map: &mut Map<String, Value>, key: &str, value: Value) {
        if self.roll(2) == 0 {
            map.insert(key.to_owned(), value);
        }
    }
}

/// The user data and up to three drop-ins of a seed.
pub(super) fn case(seed: u64) -> Case {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let parts: Vec<String> = (0..1 + dice.roll(2)).map(|_| document(&mut dice)).collect();
    let body: String = parts
        .iter()
        .map(|part| format!("--BOUNDARY\nContent-Type: application/node.eks.aws\n\n{part}\n"))
        .collect();
    let mut case = Case::of(format!("seed {seed}"), format!("{HEAD}{body}--BOUNDARY--\n"));
    for name in ["10-a.yaml", "20-b.json", "30-c.yml"] {
        if dice.roll(2) == 0 {
            case = case.file(name, document(&mut dice));
        }
    }
    case
}

fn document(dice: &mut Dice) -> String {
    let spec = spec(dice);
    let whole = json!({"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": spec});
    match dice.roll(2) {
        0 => format!("{whole:#}"),
        _ => serde_yaml::to_string(&whole).unwrap(),
    }
}

fn spec(dice: &mut Dice) -> Value {
    let texts = ["", "a", "b", "some text"];
    let mut cluster = Map::new();
    for (key, values) in [
        ("name", ["prod", "prod", ""]),
        ("apiServerEndpoint", ["https://x", "https://x", ""]),
        ("certificateAuthority", ["UEVN", "UEVN", ""]),
        ("cidr", ["10.0.0.0/16", "10.0.0.0/16", ""]),
    ] {
        if dice.roll(5) > 0 {
            cluster.insert(key.into(), dice.one(&values).into());
        }
    }
    let outpost = dice.one(&[json!(null), json!(false), json!(true)]);
    dice.maybe(&mut cluster, "enableOutpost", outpost);
    let id = dice.one(&texts);
    dice.maybe(&mut cluster, "id", id.into());

    let mut kubelet = Map::new();
    let list: Vec<String> = (0..dice.roll(3)).map(|n| format!("--v={n}")).collect();
    dice.maybe(&mut kubelet, "flags", json!(list));
    let config = free(dice, 3);
    dice.maybe(&mut kubelet, "config", config);
    let expression = dice.one(&texts);
    dice.maybe(&mut kubelet, "maxPodsExpression", expression.into());

    let mut containerd = Map::new();
    let toml = dice.one(&[
        "",
        "x = 1\n",
        "[a]\nx = true\nl = [1, 2]\n",
        "[a]\nx = false\n[a.b]\ny = 's'\n",
    ]);
    dice.maybe(&mut containerd, "config", toml.into());
    let base = free(dice, 2);
    dice.maybe(&mut containerd, "baseRuntimeSpec", base);

    let mut instance = Map::new();
    let mounts =
        dice.one(&[json!([]), json!(["SOCI"]), json!(null), json!(["Containerd", "PodLogs"])]);
    let strategy = dice.one(&["", "RAID0", "Mount"]);
    let path = dice.one(&texts);
    let storage = json!({"strategy": strategy, "disabledMounts": mounts, "mountPath": path});
    dice.maybe(&mut instance, "localStorage", storage);
    let domains = dice.one(&[json!([]), json!(["x"]), json!(["v", "z"])]);
    dice.maybe(&mut instance, "network", json!({"domains": domains}));
    let variables =
        dice.one(&[json!({}), json!({"A": "1"}), json!({"A": "", "B": "2"}), json!(null)]);
    let service = dice.one(&["default", "kubelet"]);
    dice.maybe(&mut instance, "environment", json!({service: variables}));

    let mut spec = Map::new();
    spec.insert("cluster".into(), cluster.into());
    dice.maybe(&mut spec, "kubelet", kubelet.into());
    dice.maybe(&mut spec, "containerd", containerd.into());
    dice.maybe(&mut spec, "instance", instance.into());
    let gates =
        json!({"InstanceIdNodeName": dice.roll(2) == 0, "FastImagePull": dice.roll(2) == 0});
    dice.maybe(&mut spec, "featureGates", gates);
    spec.into()
}

/// A map of anything, few keys, so that merges meet.
fn free(dice: &mut Dice, depth: u64) -> Value {
    let mut map = Map::new();
    for key in ["a", "b", "c", "d"] {
        let value = match dice.roll(9) {
            0 => Value::Null,
            1 => json!(dice.roll(2) == 0),
            2 => json!(dice.roll(3)),
            3 => json!(dice.one(&["", "x", "some text", "1"])),
            4 => json!([dice.roll(3), {"k": "v"}]),
            5 => json!([]),
            6 | 7 if depth > 0 => free(dice, depth - 1),
            _ => continue,
        };
        map.insert(key.to_owned(), value);
    }
    map.into()
}
