//! What an entry of the corpus may say. The words are closed: an injection is a real change of the
//! node's world or of what AWS, Kubernetes or PID 1 answers, never the answer itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use contract::join_report::JoinOutcome;
use contract::reason::{Owner, Reason};
use contract::{Phase, names};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::faults::Fault;

/// The file of reasons that have no entry yet.
const MISSING: &str = "missing.yaml";

/// One entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// Its name, which is its pool's too.
    pub case: String,
    /// What is broken, in one sentence.
    pub about: String,
    /// The cause that must be named; none: the node must join and name nothing hard.
    #[serde(default)]
    pub reason: Option<Named>,
    /// The rows of the agent's check catalogue that it proves, by their ids: `gpu.remap_pending`.
    #[serde(default)]
    pub checks: Vec<String>,
    /// Other reasons that may be named beside it.
    #[serde(default)]
    pub with: Vec<Named>,
    /// How the join must stand; by default `failed` for a reason that closes the gate, else `ready`.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Where the cause must have been heard; by default wherever the phase leaves a way.
    #[serde(default)]
    pub channels: Option<BTreeSet<Channel>>,
    /// What the report must say was tried to mend it: how each action begins, and whether it helped.
    #[serde(default)]
    pub repairs: BTreeMap<String, bool>,
    /// What is broken before the node boots, in the words of `lab fault`.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Instance type.
    #[serde(default = "small", rename = "type")]
    pub instance_type: String,
    /// Merge patch of the agent's configuration.
    #[serde(default)]
    pub agent: Option<Value>,
    /// Merge patch of the NodeConfig.
    #[serde(default)]
    pub node: Option<Value>,
    /// What becomes of the user data.
    #[serde(default)]
    pub user_data: Shape,
    /// The image brings the agent's configuration, the user data does not.
    #[serde(default)]
    pub agent_on_disk: bool,
    /// The image has the NodeConfig in `/etc/eks/nodeadm.d`, besides what the user data has.
    #[serde(default)]
    pub node_on_disk: bool,
    /// The policy of its pool, as `control` would have left it in Parameter Store.
    #[serde(default)]
    pub policy: Option<Value>,
    /// The subnet that it is launched into.
    #[serde(default)]
    pub subnet: Subnet,
    /// The instance's role; by default the pool's.
    #[serde(default)]
    pub role: RoleWish,
    /// What a node must be for it.
    #[serde(default)]
    pub nodes: Nodes,
    /// It breaks something that all share: nothing else runs meanwhile.
    #[serde(default)]
    pub alone: bool,
    /// It is in CI's sample.
    #[serde(default)]
    pub sample: bool,
    /// What happens on the way to the verdict, one after the other.
    #[serde(default)]
    pub meanwhile: Vec<Cue>,
    /// What happens after the verdict.
    #[serde(default)]
    pub then: Vec<Step>,
    /// How long the verdict may take, and the condition after it, in seconds.
    #[serde(default = "two_minutes")]
    pub within: u64,
}

fn small() -> String {
    "g5.xlarge".to_owned()
}

const fn two_minutes() -> u64 {
    120
}

/// A reason by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Named(pub Reason);

impl TryFrom<String> for Named {
    type Error = contract::reason::UnknownReason;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self)
    }
}

/// How a join must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Still waiting, with the cause named.
    Joining,
    /// Ready.
    Ready,
    /// Kept out.
    Failed,
}

impl Outcome {
    /// The report's word for it.
    #[must_use]
    pub const fn of_report(self) -> JoinOutcome {
        match self {
            Self::Joining => JoinOutcome::Joining,
            Self::Ready => JoinOutcome::Ready,
            Self::Failed => JoinOutcome::Failed,
        }
    }
}

/// A way on which a node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The serial console.
    Console,
    /// `/run/rollcall/report.json`.
    File,
    /// The join's log.
    Journal,
    /// Parameter Store.
    Ssm,
    /// The instance's tag.
    Tag,
    /// The Node's condition.
    Condition,
}

/// What becomes of the user data on its way to the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// It arrives as it is.
    #[default]
    Mime,
    /// Base64 of it, beyond EC2's own.
    Base64,
    /// Gzip of it.
    Gzip,
    /// Lines end with CR LF.
    Crlf,
    /// A byte order mark before it.
    Bom,
    /// The NodeConfig alone, without MIME.
    Bare,
    /// No user data at all.
    Absent,
    /// Nothing but white space.
    Blank,
    /// A shell script.
    Script,
    /// The second half is missing.
    Truncated,
    /// What looks like gzip and is not.
    GzipGarbage,
    /// Bytes that are no text.
    Binary,
    /// A NodeConfig of nothing but YAML aliases of aliases, 16 KiB that would unfold to gigabytes.
    AliasBomb,
    /// A NodeConfig that is not YAML.
    BrokenYaml,
    /// Before its NodeConfig another one, which names another cluster.
    Contradicting,
    /// No NodeConfig part.
    WithoutNodeConfig,
}

/// The instance's role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RoleWish {
    /// The instance has no profile, and so no role.
    pub absent: bool,
    /// The type of its access entry: `EC2_LINUX`, `STANDARD`, `none`; by default the pool's own.
    pub entry: Option<String>,
    /// What it may not do: `ec2:DescribeSubnets`.
    pub denied: Vec<String>,
}

/// What a node must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nodes {
    /// Any will do.
    #[default]
    Any,
    /// A machine with systemd.
    Machine,
}

/// What a node's subnet must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subnet {
    /// The pool's.
    #[default]
    Roomy,
    /// One of its own, in which next to no address is free.
    Full,
}

/// What happens while a node joins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Cue {
    /// `passed cni`: wait until the node's report says that the phase is over.
    Passed(Phase),
    /// `waits drivers`: wait until the report says that the phase waits for something.
    Waits(Phase),
    /// `fault access-entry-removed`: one more fault.
    Fault(String),
    /// `lift unit-hangs=cloud-final`: this fault goes, the others stay.
    Lift(String),
}

impl TryFrom<String> for Cue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fault = |word: &str| -> Result<String, String> {
            let fault: Fault = word.parse().map_err(|error| format!("{error}"))?;
            Ok(fault.to_string())
        };
        match text.split_once(' ') {
            Some((word @ ("passed" | "waits"), label)) => {
                let phase = Phase::ALL.into_iter().find(|phase| phase.label() == label);
                let phase = phase.ok_or_else(|| format!("there is no phase `{label}`"))?;
                Ok(if word == "passed" { Self::Passed(phase) } else { Self::Waits(phase) })
            }
            Some(("fault", word)) => fault(word).map(Self::Fault),
            Some(("lift", word)) => fault(word).map(Self::Lift),
            _ => Err(format!(
                "`{text}` is no cue: passed PHASE, waits PHASE, fault FAULT or lift FAULT"
            )),
        }
    }
}

/// What happens to a node after its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Step {
    /// `lift`: all faults are lifted; the node must join by itself.
    Lift,
    /// `fault clock-behind=3600`: one more fault; the node must stay Ready.
    Fault(Fault),
    /// `kill-join`: the join's process is killed; the node must be Ready afterwards, in a new life.
    KillJoin,
    /// `reboot`: the instance reboots; the node must be Ready afterwards, in a new boot.
    Reboot,
    /// `ill GpuLost gpu-lost=3`: the fault comes after the join; the Node's condition about its GPUs
    /// must turn False and name the reason, and turn True again when the fault is lifted.
    Ill(Reason, Fault),
    /// `restarts GpuLost gpu-lost=3`: the same; while it lasts, both of the agent's units are restarted. They
    /// must end by themselves, every GPU must be in the metrics until the watch ends, and the condition
    /// must stand as it stood, since when it stood.
    Restarts(Reason, Fault),
    /// `falls FatalXid sxid=20034:fatal`: the same, without the end: what comes next brings that.
    Falls(Reason, Fault),
    /// `well`: the condition is True again.
    Well,
    /// `event PcieErrors aer=3:correctable`: the fault comes after the join; an event on the Node must name
    /// the reason, another must say that it is over when the fault is lifted, and the condition stays True.
    Event(Reason, Fault),
    /// `told NcclCrash kmsg=…`: the same for what is past when it is said: nothing is taken back.
    Told(Reason, Fault),
    /// `metric DCGM_FI_DEV_ECC_SBE_VOL_TOTAL gpu-set=…`: a value of this family changes on the node's metrics,
    /// and nothing else is said of it.
    Metric(String, Fault),
}

impl Step {
    /// The reason that it must bring.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Ill(reason, _)
            | Self::Falls(reason, _)
            | Self::Restarts(reason, _)
            | Self::Event(reason, _)
            | Self::Told(reason, _) => Some(*reason),
            Self::Lift
            | Self::Fault(_)
            | Self::KillJoin
            | Self::Reboot
            | Self::Well
            | Self::Metric(..) => None,
        }
    }
}

impl TryFrom<String> for Step {
    type Error = crate::faults::FaultError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        if let [word, what, fault] = words[..] {
            let of = |step: fn(Reason, Fault) -> Self| {
                let reason = what.parse().ok()?;
                Some(fault.parse().map(|fault| step(reason, fault)))
            };
            let step = match word {
                "ill" => of(Self::Ill),
                "falls" => of(Self::Falls),
                "restarts" => of(Self::Restarts),
                "event" => of(Self::Event),
                "told" => of(Self::Told),
                "metric" => Some(fault.parse().map(|fault| Self::Metric(what.to_owned(), fault))),
                _ => None,
            };
            if let Some(step) = step {
                return step;
            }
        }
        match text.as_str() {
            "lift" => Ok(Self::Lift),
            "well" => Ok(Self::Well),
            "kill-join" => Ok(Self::KillJoin),
            "reboot" => Ok(Self::Reboot),
            other => other.strip_prefix("fault ").unwrap_or(other).parse().map(Self::Fault),
        }
    }
}

/// Why the corpus cannot be read.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// A file.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry.
    #[error("`{}` is no file of cases", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
    /// Something in it makes no sense.
    #[error("{0}")]
    Senseless(String),
}

/// All entries.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The cases, in the order of files and lines.
    pub cases: Vec<Case>,
    /// Reasons, and rows of the agent's check catalogue, without an entry, each with why.
    pub missing: BTreeMap<String, String>,
}

impl Corpus {
    /// Reads every file of `directory`, in join order where they are named for phases.
    ///
    /// # Errors
    /// When one cannot be read, or an entry makes no sense.
    pub fn read(directory: &Path) -> Result<Self, CorpusError> {
        let mut cases: Vec<Case> = Vec::new();
        let mut missing = BTreeMap::new();
        let failed = |source| CorpusError::Read { path: directory.to_owned(), source };
        let mut paths: Vec<PathBuf> = fs::read_dir(directory)
            .map_err(failed)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        paths.sort_by_key(|path| (place(path), path.clone()));
        for path in paths {
            let read = |source| CorpusError::Read { path: path.clone(), source };
            let parse = |source| CorpusError::Parse { path: path.clone(), source };
            let text = fs::read_to_string(&path).map_err(read)?;
            match path.file_name().and_then(|name| name.to_str()) {
                Some(MISSING) => missing = serde_yaml::from_str(&text).map_err(parse)?,
                Some("fleet.yaml") => {}
                _ => cases.extend(serde_yaml::from_str::<Vec<Case>>(&text).map_err(parse)?),
            }
        }
        let corpus = Self { cases, missing };
        corpus.check().map_err(CorpusError::Senseless)?;
        Ok(corpus)
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for case in &self.cases {
            if !names.insert(&case.case) {
                return Err(format!("two cases are called `{}`", case.case));
            }
            case.check().map_err(|why| format!("case `{}`: {why}", case.case))?;
        }
        Ok(())
    }

    /// The cases that are called or reproduce one of these; all when nothing is said.
    ///
    /// # Errors
    /// Names the word that fits nothing.
    pub fn chosen(&self, words: &[String]) -> Result<Vec<&Case>, String> {
        let fits = |case: &Case, word: &str| {
            let reason = case.reason.map(|named| named.0.name()).unwrap_or_default();
            case.case == *word || reason.eq_ignore_ascii_case(word)
        };
        for word in words {
            if !self.cases.iter().any(|case| fits(case, word)) {
                return Err(format!(
                    "no case is called `{word}` and none reproduces such a reason"
                ));
            }
        }
        let chosen = self.cases.iter();
        Ok(chosen
            .filter(|case| words.is_empty() || words.iter().any(|word| fits(case, word)))
            .collect())
    }

    /// Reasons that a node can name and that have neither an entry nor an excuse.
    #[must_use]
    pub fn uncovered(&self) -> Vec<Reason> {
        let has_entry = |reason: Reason| {
            self.cases.iter().any(|case| case.names().any(|named| named == reason))
        };
        let of_nodes = Reason::ALL.iter().copied().filter(|r| r.entry().owner != Owner::Outside);
        of_nodes.filter(|r| !has_entry(*r) && !self.missing.contains_key(r.name())).collect()
    }
}

/// Files named for a phase come in join order, the others behind.
fn place(path: &Path) -> usize {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let place = Phase::ALL.iter().position(|phase| phase.label() == stem);
    place.unwrap_or(Phase::ALL.len())
}

impl Case {
    /// Every reason that must be named, before the verdict or after it.
    pub fn names(&self) -> impl Iterator<Item = Reason> {
        let later = self.then.iter().filter_map(Step::reason);
        self.reason.map(|named| named.0).into_iter().chain(later)
    }

    /// The outcome that must be reached.
    #[must_use]
    pub fn expected(&self) -> Outcome {
        let hard = self.reason.is_some_and(|named| named.0.is_hard() && !named.0.is_observed());
        self.outcome.unwrap_or(if hard { Outcome::Failed } else { Outcome::Ready })
    }

    /// The channels on which the cause must have been heard.
    #[must_use]
    pub fn heard(&self) -> BTreeSet<Channel> {
        use Channel::{Condition, Console, File, Journal, Ssm, Tag};
        if let Some(channels) = &self.channels {
            return channels.clone();
        }
        let Some(Named(reason)) = self.reason else { return BTreeSet::new() };
        let at_node = [Console, File, Journal];
        let far = match (self.expected(), reason.entry().owner) {
            (Outcome::Ready, _) if reason.is_observed() => &[Condition][..],
            (Outcome::Joining | Outcome::Ready, _) => &[][..],
            (_, Owner::Phase(Phase::Ready)) => &[Ssm, Tag, Condition][..],
            _ => &[Ssm, Tag][..],
        };
        at_node.into_iter().chain(far.iter().copied()).collect()
    }

    /// What is broken before boot.
    ///
    /// # Errors
    /// Names the fault that there is not.
    pub fn injections(&self) -> Result<Vec<Fault>, crate::faults::FaultError> {
        self.faults.iter().map(|text| text.parse()).collect()
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.case.is_empty() || !self.case.chars().all(plain) {
            return Err("the name must be of a-z, 0-9 and -".into());
        }
        if self.about.len() < 20 || !self.about.ends_with('.') {
            return Err("`about` must be one sentence that says what is broken".into());
        }
        self.injections().map_err(|error| error.to_string())?;
        // The parameter's name holds it.
        let longest = names::report_parameter("corpus", &self.case, "i-0123456789abcdef0").len();
        if longest > 200 { Err("the name is too long".into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Corpus {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
        Corpus::read(&directory).unwrap()
    }

    #[test]
    fn every_reason_of_a_node_has_an_entry_or_an_excuse() {
        let corpus = corpus();
        assert_eq!(corpus.uncovered(), []);
        for (name, why) in &corpus.missing {
            assert!(why.len() > 20, "{name}: say why");
            // Rows of the check catalogue, which the end-to-end tests hold against the agent's.
            if name.contains('.') {
                continue;
            }
            let reason: Reason = name.parse().unwrap();
            let entry = corpus.cases.iter().find(|case| case.names().any(|named| named == reason));
            assert!(entry.is_none(), "{name} has an entry: take it out of {MISSING}");
        }
    }

    #[test]
    fn cues_are_read() {
        let read = |text: &str| Cue::try_from(text.to_owned());
        assert_eq!(read("passed cni"), Ok(Cue::Passed(Phase::Cni)));
        assert_eq!(read("waits drivers"), Ok(Cue::Waits(Phase::Drivers)));
        assert_eq!(read("lift cni-held"), Ok(Cue::Lift("cni-held".into())));
        for bad in ["passed dinner", "fault nothing", "cni", "sleep 4"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cases_are_chosen_by_name_and_by_reason() {
        let corpus = corpus();
        let names = |words: &[&str]| -> Vec<String> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            corpus.chosen(&words).unwrap().iter().map(|case| case.case.clone()).collect()
        };
        assert_eq!(names(&[]).len(), corpus.cases.len());
        assert!(names(&["GpuLost"]).contains(&"gpu-lost".to_owned()));
        assert_eq!(names(&["gpu-lost"]), ["gpu-lost"]);
        assert!(corpus.chosen(&["nothing".into()]).is_err());
    }

    #[test]
    fn the_cases_stand_in_join_order() {
        let phases: Vec<Phase> = corpus()
            .cases
            .iter()
            .filter_map(|case| match case.reason?.0.entry().owner {
                Owner::Phase(phase) => Some(phase),
                Owner::AnyPhase | Owner::AfterJoin | Owner::Outside => None,
            })
            .collect();
        assert!(phases.first() == Some(&Phase::Identify), "{phases:?}");
    }
}
