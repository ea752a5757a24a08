//! Calls as the emulator's journal has them, of AWS and changes of the cluster's objects, and which
//! of them are chosen.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Who `control` is; what the lab's own parts call is not its doing.
pub const CALLER: &str = ":user/operator";

/// The service that changes of the cluster's objects stand under in the journal.
pub const KUBERNETES: &str = "kubernetes";

/// What the lab itself calls with the same credentials: it hands nodes their roles.
const OF_THE_LAB: &str = "AssumeRole";

/// One call, known in every life of the same fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// `ec2`.
    pub service: String,
    /// `CreateSubnet`.
    pub operation: String,
    /// What it is about, by name.
    pub resource: String,
    /// How many of the same went before it.
    pub before: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, operation, resource, before } = self;
        write!(f, "{service} {operation} `{resource}` #{before}")
    }
}

impl Call {
    /// Whether it only reads, by the names that AWS gives its operations.
    #[must_use]
    pub fn is_read(&self) -> bool {
        ["Describe", "Get", "List", "Head", "Simulate"]
            .iter()
            .any(|word| self.operation.starts_with(word))
    }
}

/// The calls of `control` in a piece of the journal, in order.
#[must_use]
pub fn of_control(journal: &Value) -> Vec<Call> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let mut seen: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    let entries = journal.as_array().into_iter().flatten();
    entries
        .filter(|entry| text(entry, "caller").ends_with(CALLER) && text(entry, "op") != OF_THE_LAB)
        .map(|entry| {
            let (service, operation) = (text(entry, "service"), text(entry, "op"));
            let resource = text(entry, "resource");
            let count = seen.entry((service.clone(), operation.clone(), resource.clone()));
            let count = count.or_default();
            let before = *count;
            *count += 1;
            Call { service, operation, resource, before }
        })
        .collect()
}

/// Chooses `count` of them by a seed, in their order (selection sampling, Knuth's algorithm S).
#[must_use]
pub fn sample<T: Clone>(all: &[T], count: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = move |bound: usize| {
        // Steele and Vigna's splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from((z ^ (z >> 31)) % bound.max(1)).unwrap_or_default()
    };
    let mut chosen = Vec::new();
    for (place, item) in all.iter().enumerate() {
        if next(all.len() - place) < count.saturating_sub(chosen.len()) {
            chosen.push(item.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_told_apart_by_how_often_they_came() {
        let call = |op: &str, resource: &str, caller: &str| {
            let caller = format!("arn:aws:iam::1{caller}");
            json!({"service": "ec2", "op": op, "resource": resource, "caller": caller})
        };
        let journal = json!([
            call("CreateVpc", "prod", CALLER),
            call("CreateTags", "prod", ":role/node"),
            call("DescribeVpcs", "", CALLER),
            call("CreateVpc", "prod", CALLER),
        ]);
        let calls = of_control(&journal);
        let said: Vec<String> = calls.iter().map(ToString::to_string).collect();
        let wanted =
            ["ec2 CreateVpc `prod` #0", "ec2 DescribeVpcs `` #0", "ec2 CreateVpc `prod` #1"];
        assert_eq!(said, wanted);
        assert_eq!(calls.iter().filter(|call| call.is_read()).count(), 1);
    }

    #[test]
    fn a_seed_chooses_the_same_ones_again() {
        let all: Vec<usize> = (0..100).collect();
        let chosen = sample(&all, 20, 7);
        assert_eq!((chosen.len(), &chosen), (20, &sample(&all, 20, 7)));
        assert!(chosen.is_sorted() && chosen != sample(&all, 20, 8));
        assert_eq!(sample(&all, 200, 7), all);
    }
}
