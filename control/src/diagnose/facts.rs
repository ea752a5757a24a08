//! What can be known of a node from outside, as plain data: the input of every verdict and rule.

use std::fmt;

use contract::agent_config::GpuOffer;
use contract::names::{CONDITION_ACCELERATED_HARDWARE, CONDITION_GPU_NODE_HEALTHY};
use contract::offer::{Devices, Offered, Plugged};
use contract::{ConsoleLine, JoinReport};
use jiff::Timestamp;
use serde::Serialize;

use crate::kube::{ConditionFacts, NodeFacts};

/// A fact that may not be had: not read is not the same as not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It was read.
    Known(T),
    /// It could not be read, and why.
    Unknown(String),
}

impl<T> Known<T> {
    /// The fact, when it was read.
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Known(fact) => Some(fact),
            Self::Unknown(_) => None,
        }
    }

    /// Why it could not be read.
    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }

    /// What an attempt to read it has given.
    pub fn of<E: std::error::Error + 'static>(result: Result<T, E>) -> Self {
        match result {
            Ok(fact) => Self::Known(fact),
            Err(error) => Self::Unknown(contract::ErrorChain(&error).to_string()),
        }
    }
}

impl<T> Known<Option<T>> {
    /// The thing, when it was read and exists.
    pub fn present(&self) -> Option<&T> {
        self.get().and_then(Option::as_ref)
    }

    /// Whether it was looked for and is not there.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Known(None))
    }
}

/// What EC2 says of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Instance id.
    pub id: String,
    /// Instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// `pending`, `running`, …
    pub state: String,
    /// Why it is in that state: code and message.
    pub state_reason: Option<String>,
    /// When it was launched.
    pub launched: Timestamp,
    /// Its place among those launched together.
    pub launch_index: i32,
    /// Its pool, by tag.
    pub pool: String,
    /// Its layer, by tag.
    pub layer: String,
    /// How its GPUs are offered to pods, by tag.
    pub offer: GpuOffer,
    /// The tag that the node puts on itself: `<outcome> <Reason>`.
    pub join_tag: Option<String>,
    /// The instance profile's ARN.
    pub profile_arn: Option<String>,
}

impl InstanceFacts {
    /// Whether it is, or will be, there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "shutting-down" | "terminated")
    }
}

/// A node's report as Parameter Store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportFacts {
    /// The report.
    pub report: JoinReport,
    /// Who wrote it last, by Parameter Store's own record.
    pub author: Author,
}

/// Who wrote a report: IAM cannot bind a parameter's name to an instance, its author can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The instance that it is about.
    Itself,
    /// Parameter Store does not say.
    Unrecorded,
    /// Somebody else: their ARN. The report is not to be believed.
    Other(String),
}

impl Author {
    /// Judges `LastModifiedUser`. An instance's role session is named by its instance id.
    #[must_use]
    pub fn of(last_modified_user: Option<&str>, instance: &str) -> Self {
        match last_modified_user.filter(|arn| arn.starts_with("arn:")) {
            None => Self::Unrecorded,
            Some(arn)
                if arn.contains(":assumed-role/") && arn.rsplit('/').next() == Some(instance) =>
            {
                Self::Itself
            }
            Some(arn) => Self::Other(arn.to_owned()),
        }
    }
}

/// What the serial console shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleFacts {
    /// Whether anything is on it at all.
    pub booted: bool,
    /// The last line of ours.
    pub line: Option<ConsoleLine>,
    /// The last lines of anybody.
    pub tail: Vec<String>,
}

impl ConsoleFacts {
    /// Reads a console's output.
    #[must_use]
    pub fn of(output: &str) -> Self {
        let written: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        Self {
            booted: !written.is_empty(),
            line: ConsoleLine::last_in(output),
            tail: written
                .iter()
                .rev()
                .take(3)
                .rev()
                .map(|line| (*line).trim().to_owned())
                .collect(),
        }
    }
}

/// What a survey of the fleet knows of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEvidence {
    /// The instance.
    pub instance: InstanceFacts,
    /// Its Node object.
    pub node: Known<Option<NodeFacts>>,
    /// Its report.
    pub report: Known<Option<ReportFacts>>,
    /// Its console; none when nobody had to look.
    pub console: Known<Option<ConsoleFacts>>,
    /// GPUs for pods in its ResourceSlices; none where a device plugin offers them, or nothing does.
    pub slices: Known<Option<u32>>,
    /// The GPUs that its instance type has.
    pub gpus_expected: Option<u32>,
}

impl NodeEvidence {
    /// The Node's condition about its GPUs.
    #[must_use]
    pub fn hardware(&self) -> Option<&ConditionFacts> {
        let node = self.node.present()?;
        // Where eks-node-monitoring-agent owns the first one, ours is the second: it outranks.
        node.condition(CONDITION_GPU_NODE_HEALTHY)
            .or_else(|| node.condition(CONDITION_ACCELERATED_HARDWARE))
    }

    /// How MIG divides its GPUs, as its agent says; none where it does not, or nobody says.
    #[must_use]
    pub fn divided(&self) -> Option<Devices> {
        let said = self.hardware().filter(|condition| condition.is_true())?;
        said.message.parse().ok().filter(|devices: &Devices| devices.divided > 0)
    }

    /// What pods can have of its GPUs, the way this pool offers them; none when nothing names them.
    #[must_use]
    pub fn offered(&self) -> Known<Option<Offered>> {
        let devices = self.divided().or(self.gpus_expected.map(Devices::whole));
        match self.instance.offer {
            GpuOffer::DevicePlugin => {
                let plugged = self.node.present().map(NodeFacts::plugged).unwrap_or_default();
                match devices {
                    _ if plugged == Plugged::default() => Known::Known(None),
                    Some(devices) if plugged.parts == 0 || devices.divided > 0 => {
                        Known::Known(Some(devices.plugged(plugged)))
                    }
                    _ => Known::Unknown("nobody says how MIG divides the GPUs".into()),
                }
            }
            GpuOffer::Dra => match (&self.slices, devices) {
                (Known::Unknown(why), _) => Known::Unknown(why.clone()),
                (Known::Known(Some(count)), Some(devices)) => {
                    Known::Known(Some(devices.sliced(*count)))
                }
                (Known::Known(_), _) => Known::Known(None),
            },
            GpuOffer::None => Known::Known(None),
        }
    }

    /// What is counted: MIG devices, too, where there are any.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.divided().is_some() { "GPUs and MIG devices" } else { "GPUs" }
    }

    /// Whether all GPUs are on offer, where any are to be.
    #[must_use]
    pub fn offers_all(&self) -> bool {
        self.instance.offer == GpuOffer::None
            || self.offered().present().is_some_and(|offered| offered.is_whole())
    }
}

/// How far a node has come, judged from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The instance is gone, or on its way.
    Gone,
    /// The cluster does not answer, and the node itself says nothing.
    Unknown,
    /// Nothing of it has reached the console.
    NeverBooted,
    /// It boots, or its join is before kubelet.
    NotBootstrapped,
    /// kubelet was started, and there is no Node object.
    NotRegistered,
    /// The Node object is there and not Ready.
    NotReady,
    /// Ready, and its GPUs are not all proven and on offer.
    WithoutGpus,
    /// Ready with everything that was paid for.
    Proven,
}

impl Stage {
    /// The stage in words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Unknown => "not known: the cluster does not answer",
            Self::NeverBooted => "never booted",
            Self::NotBootstrapped => "booted, not bootstrapped",
            Self::NotRegistered => "kubelet running, not registered",
            Self::NotReady => "registered, not Ready",
            Self::WithoutGpus => "Ready without its GPUs",
            Self::Proven => "proven",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// What a gate may conclude of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Under way.
    Joining,
    /// Ready, with all of its GPUs proven and on offer.
    Ready,
    /// Its cause is named.
    Failed,
}

impl NodeState {
    /// The word on every screen.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_the_instances_own_or_it_is_flagged() {
        let of = |arn| Author::of(arn, "i-0abc");
        assert_eq!(of(Some("arn:aws:sts::1:assumed-role/prod-gpu-node/i-0abc")), Author::Itself);
        assert_eq!(of(None), Author::Unrecorded);
        assert_eq!(of(Some("N/A")), Author::Unrecorded);
        for forged in [
            "arn:aws:sts::1:assumed-role/prod-gpu-node/i-0def",
            "arn:aws:iam::1:user/i-0abc",
            "arn:aws:sts::1:assumed-role/i-0abc/me",
        ] {
            assert_eq!(of(Some(forged)), Author::Other(forged.into()));
        }
    }

    #[test]
    fn a_console_keeps_its_last_words() {
        assert_eq!(ConsoleFacts::of("\n  \n"), ConsoleFacts::default());
        let facts = ConsoleFacts::of("a\nb\n\nc\nd\n");
        assert!(facts.booted && facts.line.is_none());
        assert_eq!(facts.tail, ["b", "c", "d"]);
    }
}
