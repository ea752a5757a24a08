//! How long a plan will take, roughly. Pure. The figures are typical times of AWS's own work and of a
//! node's way in, as operators report them; nobody has measured them here against a real account, and
//! a zone that is short of capacity or a driver that is slow to load knows no typical time.
//!
//! No price stands beside it: there is no list of prices here, and a made-up figure is worse than none.

use crate::stack::driver::{PlannedLayer, PlannedStep};
use crate::stack::{Action, Layer};

/// Seconds that a step takes before what depends on it can go on; the steps of a layer run side by
/// side, so the longest counts.
fn seconds(layer: Layer, step: &PlannedStep) -> u64 {
    match (step.action, step.resource) {
        (Action::Add, "nat gateway") => 120,
        (Action::Add, "vpc endpoint") => 90,
        (Action::Add, "eks cluster") => 570,
        (Action::Destroy, "eks cluster") => 240,
        (Action::Add, "add-on") => 30,
        (Action::Add, "role" | "node rights") => 20,
        // A driver has to load and GPUs to be proven.
        (Action::Add | Action::Change, "node group" | "node group size") => match layer {
            Layer::Gpu => 330,
            _ => 180,
        },
        // One node after the other is drained, ended and made anew; of how many is not known here.
        (Action::Replace, "node group" | "nodes") => 600,
        (Action::Destroy, "node group") => 240,
        _ => 2,
    }
}

/// Seconds that the whole plan may take; none when there is nothing to do.
#[must_use]
pub fn estimate(layers: &[PlannedLayer]) -> Option<u64> {
    let longest = |layer: &PlannedLayer| {
        layer.steps.iter().map(|step| seconds(layer.layer, step)).max().unwrap_or(0)
    };
    let total: u64 = layers.iter().map(longest).sum();
    (total > 0).then_some(total)
}

/// `about 18 min`, `under a minute`.
#[must_use]
pub fn words(seconds: u64) -> String {
    match seconds {
        0..60 => "under a minute".to_owned(),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(layer: Layer, steps: &[(Action, &'static str)]) -> PlannedLayer {
        let step = |(action, resource): &(Action, &'static str)| PlannedStep {
            action: *action,
            resource,
            name: String::new(),
            why: String::new(),
        };
        PlannedLayer { layer, steps: steps.iter().map(step).collect() }
    }

    #[test]
    fn the_longest_of_each_layer_counts() {
        let add = Action::Add;
        let whole = [
            layer(Layer::Network, &[(add, "vpc"), (add, "nat gateway"), (add, "subnet")]),
            layer(Layer::Cluster, &[(add, "eks cluster")]),
            layer(Layer::Gpu, &[(add, "node group"), (add, "node group")]),
        ];
        assert_eq!(estimate(&whole), Some(120 + 570 + 330));
        assert_eq!(words(1020), "about 17 min");
        let tags = [layer(Layer::Network, &[(Action::Change, "tags"), (Action::Change, "tags")])];
        assert_eq!(estimate(&tags).map(words).unwrap(), "under a minute");
        assert_eq!(estimate(&[layer(Layer::Network, &[])]), None);
    }
}
