//! How a pool's nodes judge themselves: what closes the gate, what a GPU must be and show, what an XID
//! means. Typed here, judged here; the agent does what it says. Pure.

use std::collections::BTreeMap;

use contract::agent_config::{Enforce, GpuReset, OnAgentFault, Show, XidClass, XidRule};
use contract::{AgentConfig, Reason, ReasonName};
use serde::Serialize;

use crate::config::raw::{RawGpu, RawPool, RawXid};
use crate::config::resolve::Judge;
use crate::config::schema::{did_you_mean, nearest};
use crate::config::spec::PoolClass;

/// NVIDIA divides no GPU into more.
const MIG_MAX: u64 = 7;

/// How a pool's nodes judge themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodePolicy {
    /// Whether a closed gate keeps nodes out.
    pub enforce: Enforce,
    /// Exceptions to it.
    pub enforce_reasons: BTreeMap<ReasonName, Enforce>,
    /// What happens when the agent itself cannot run.
    pub on_agent_fault: OnAgentFault,
    /// What its GPUs must be.
    pub gpu: GpuPolicy,
}

/// What a pool's GPUs must be, and what follows where they are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GpuPolicy {
    /// The least driver.
    pub min_driver: Option<String>,
    /// Whether each GPU must compute before its node joins.
    pub cuda_canary: bool,
    /// MIG devices of each; 0: undivided. None: any division.
    pub mig_devices: Option<u32>,
    /// Whether programs need nvidia-peermem.
    pub peermem: bool,
    /// Whether one that asks for a reset gets it.
    pub reset: GpuReset,
    /// What single XIDs mean.
    pub xids: BTreeMap<u32, XidRule>,
    /// Where single reasons are shown after the join.
    pub show_reasons: BTreeMap<ReasonName, Show>,
}

impl NodePolicy {
    /// Puts it into what the nodes' agents are told.
    pub(crate) fn tell(&self, agent: &mut AgentConfig) {
        let Self { enforce, enforce_reasons, on_agent_fault, gpu } = self.clone();
        agent.enforce = enforce;
        agent.enforce_reasons = enforce_reasons;
        agent.on_agent_fault = on_agent_fault;
        let GpuPolicy { min_driver, cuda_canary, mig_devices, peermem, reset, xids, show_reasons } =
            gpu;
        agent.min_driver = min_driver;
        agent.cuda_canary = cuda_canary;
        agent.mig_devices = mig_devices;
        agent.peermem = peermem;
        agent.gpu_reset = reset;
        agent.xids = xids;
        agent.show_reasons = show_reasons;
    }
}

pub(super) fn resolve(
    judge: &mut Judge,
    path: &str,
    class: Option<PoolClass>,
    raw: &RawPool,
) -> NodePolicy {
    if raw.gpu.is_some() && class.is_some_and(|class| class != PoolClass::Gpu) {
        judge.say(format!("{path}.gpu"), "goes with pools of class `gpu` alone");
    }
    let gpu = raw.gpu.as_ref().map(|gpu| gpu_policy(judge, &format!("{path}.gpu"), gpu));
    let at = format!("{path}.enforceReasons");
    let enforce_reasons =
        by_reason(judge, &at, raw.enforce_reasons.as_ref(), |judge, at, reason| {
            if !reason.is_hard() {
                judge.say(at, format!("`{reason}` closes no gate"));
            }
        });
    NodePolicy {
        enforce: enforce(raw.enforce.as_deref()),
        enforce_reasons: enforce_reasons
            .into_iter()
            .map(|(reason, word)| (reason, enforce(Some(&word))))
            .collect(),
        on_agent_fault: match raw.on_agent_fault.as_deref() {
            Some("closed") => OnAgentFault::Closed,
            _ => OnAgentFault::default(),
        },
        gpu: gpu.unwrap_or_default(),
    }
}

fn enforce(word: Option<&str>) -> Enforce {
    match word {
        Some("observe") => Enforce::Observe,
        _ => Enforce::default(),
    }
}

fn gpu_policy(judge: &mut Judge, path: &str, raw: &RawGpu) -> GpuPolicy {
    if let Some(version) = &raw.min_driver
        && !version.split('.').all(|part| part.parse::<u32>().is_ok())
    {
        let message = format!("`{version}` is not of the form `580` or `580.95.05`");
        judge.say(format!("{path}.minDriver"), message);
    }
    if let Some(devices) = raw.mig_devices.filter(|devices| *devices > MIG_MAX) {
        let message = format!("must be 0 to {MIG_MAX}, is {devices}: each GPU's, not the node's");
        judge.say(format!("{path}.migDevices"), message);
    }
    let at = format!("{path}.showReasons");
    let shown = by_reason(judge, &at, raw.show_reasons.as_ref(), |_, _, _| {});
    let show = |word: &str| if word == "event" { Show::Event } else { Show::Condition };
    let xids = raw.xids.iter().flatten();
    GpuPolicy {
        min_driver: raw.min_driver.clone(),
        cuda_canary: raw.cuda_canary == Some(true),
        mig_devices: raw.mig_devices.and_then(|devices| u32::try_from(devices).ok()),
        peermem: raw.peermem == Some(true),
        reset: if raw.reset.as_deref() == Some("on") { GpuReset::On } else { GpuReset::Off },
        xids: xids
            .filter_map(|(code, rule)| {
                xid(judge, &format!("{path}.xids.{code}"), *code, rule.as_ref()?)
            })
            .collect(),
        show_reasons: shown.into_iter().map(|(reason, word)| (reason, show(&word))).collect(),
    }
}

fn xid(judge: &mut Judge, path: &str, code: u64, raw: &RawXid) -> Option<(u32, XidRule)> {
    if raw.threshold == Some(0) {
        judge.say(format!("{path}.threshold"), "must be at least 1");
    }
    if raw.window_seconds == Some(0) {
        judge.say(
            format!("{path}.windowSeconds"),
            "must be at least 1; without it the whole boot counts",
        );
    }
    let fits = |number: u64| u32::try_from(number).ok();
    if fits(code).is_none() || code == 0 {
        judge.say(path, format!("`{code}` is no XID"));
    }
    let class = raw.class.as_deref()?;
    let class = XidClass::ALL.into_iter().find(|known| known.name() == class)?;
    let threshold = raw.threshold.map_or(Some(1), fits).unwrap_or(u32::MAX);
    Some((fits(code)?, XidRule { class, threshold, window_seconds: raw.window_seconds }))
}

/// The entries of reasons that there are; the others are said.
fn by_reason(
    judge: &mut Judge,
    path: &str,
    typed: Option<&BTreeMap<String, Option<String>>>,
    check: impl Fn(&mut Judge, &str, Reason),
) -> BTreeMap<ReasonName, String> {
    let mut known = BTreeMap::new();
    for (name, word) in typed.into_iter().flatten() {
        let at = format!("{path}.{name}");
        match name.parse::<Reason>() {
            Ok(reason) => {
                check(judge, &at, reason);
                known.extend(word.clone().map(|word| (ReasonName::from(reason), word)));
            }
            Err(_) => {
                let meant = nearest(name, Reason::ALL.iter().map(|reason| reason.name()));
                judge.say(at, format!("is no reason{}", did_you_mean(meant)));
            }
        }
    }
    known
}
