//! What is wrong with an image: pure rules over what its files say.

use contract::names::{ADMITTED_PATH, UNIT_JOIN, UNIT_KUBELET, UNIT_WATCH};

use super::facts::{Facts, KUBELET_DROP_IN, LOADER, PROGRAMS, RESOLVER, TOOLKIT};
use super::shipped::{self, Shipped};
use super::{Check, Problem};

/// The stock units that stay as they are shipped.
const STOCK: [&str; 2] = ["nodeadm-config.service", "nodeadm-boot-hook.service"];

/// The stock unit that the join stands for.
const NODEADM_RUN: &str = "nodeadm-run.service";

/// The driver trees of images since v20260917, of which the resolver takes one at the first boot.
const TREES: [&str; 2] = ["lts", "pb"];

/// What the resolver leaves behind once it has chosen.
const FROZEN: [&str; 4] = ["current", ".driver-flavor", ".loaded", ".daemons-installed"];

/// Everything that is wrong, in the order in which it is best put right.
#[must_use]
pub fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(system(facts));
    problems.extend(programs(facts));
    problems.extend(ours(facts));
    problems.extend(units(facts));
    problems.extend(driver(facts));
    problems.extend(leftovers(facts));
    problems
}

fn problem(check: Check, path: impl Into<String>, what: impl Into<String>) -> Problem {
    let fix = match check {
        Check::NotAl2023 => "build from an EKS AL2023 image",
        Check::ProgramMissing => "build from an EKS AL2023 image of this Kubernetes version",
        Check::ProgramNotExecutable | Check::WrongMode => "chmod it as the agent's tarball has it",
        Check::WrongArchitecture => "install the agent of the source image's architecture",
        Check::FileMissing => "unpack the agent's whole tarball onto the image: tar -xzf … -C /",
        Check::WrongOwner => "chown root:root",
        Check::NotEnabled => "systemctl enable it",
        Check::KubeletEnabled => "systemctl disable kubelet: the join starts it through nodeadm",
        Check::NodeadmRunEnabled => "systemctl disable nodeadm-run: the join stands for it",
        Check::NodeadmRunMasked => {
            "systemctl unmask nodeadm-run, and disable it: it is the fallback"
        }
        Check::GateMissing => "install kubelet.service.d/10-rollcall.conf as shipped",
        Check::DriverTreeMissing => "build from the NVIDIA variant, on an instance without a GPU",
        Check::DriverTreeFrozen => "build on an instance without a GPU, or the resolver chooses",
        Check::ToolkitMissing => "build from the NVIDIA variant of the EKS AL2023 image",
        Check::Leftover => "remove it in the clean-up that ends the build",
    };
    Problem { check, path: path.into(), problem: what.into(), fix }
}

fn system(facts: &Facts) -> Option<Problem> {
    let says = |key: &str| facts.os_release.get(key).map(String::as_str).unwrap_or_default();
    let (id, version) = (says("ID"), says("VERSION_ID"));
    if id == "amzn" && version.starts_with("2023") {
        return None;
    }
    let what = match facts.os_release.is_empty() {
        true => "it is not there".to_owned(),
        false => format!("it is `{id}` `{version}`, and nodeadm is for AL2023 alone"),
    };
    Some(problem(Check::NotAl2023, "/etc/os-release", what))
}

fn programs(facts: &Facts) -> Vec<Problem> {
    let agent = facts.files.get(PROGRAMS[0]).and_then(|file| file.machine);
    let mut problems = Vec::new();
    for path in PROGRAMS {
        let Some(file) = facts.files.get(path) else {
            // One of ours is named with the rest of ours.
            if !shipped::all().iter().any(|ours| ours.place == path) {
                problems.push(problem(Check::ProgramMissing, path, "it is not there"));
            }
            continue;
        };
        if file.mode & 0o111 == 0 {
            let what = format!("nobody may execute it (mode {:04o})", file.mode);
            problems.push(problem(Check::ProgramNotExecutable, path, what));
        }
        if let (Some(agent), Some(machine)) = (agent, file.machine)
            && agent != machine
        {
            let what = format!("it is for {}, and the agent for {}", machine.name(), agent.name());
            problems.push(problem(Check::WrongArchitecture, path, what));
        }
    }
    problems
}

fn ours(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Shipped { mode, place: path, .. } in shipped::all() {
        let Some(file) = facts.files.get(path) else {
            problems.push(problem(Check::FileMissing, path, "it is not there"));
            continue;
        };
        // What nobody may execute has been said above.
        if file.mode != mode && (mode & 0o111 == 0 || file.mode & 0o111 != 0) {
            let what = format!("its mode is {:04o} and must be {mode:04o}", file.mode);
            problems.push(problem(Check::WrongMode, path, what));
        }
        if file.owner != (0, 0) {
            let what = format!("it belongs to {}:{} and not to root", file.owner.0, file.owner.1);
            problems.push(problem(Check::WrongOwner, path, what));
        }
    }
    problems
}

fn units(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for unit in [UNIT_JOIN, UNIT_WATCH].into_iter().chain(STOCK) {
        if facts.masked.contains(unit) {
            problems.push(problem(Check::NotEnabled, unit, "it is masked"));
        } else if !facts.enabled.contains(unit) {
            problems.push(problem(Check::NotEnabled, unit, "nothing starts it at boot"));
        }
    }
    if facts.enabled.contains(UNIT_KUBELET) {
        let what = "it would start at boot, before any gate";
        problems.push(problem(Check::KubeletEnabled, UNIT_KUBELET, what));
    }
    if facts.masked.contains(NODEADM_RUN) {
        let what = "it is masked: the fallback could not start it";
        problems.push(problem(Check::NodeadmRunMasked, NODEADM_RUN, what));
    } else if facts.enabled.contains(NODEADM_RUN) {
        let what = "it would start kubelet past the join";
        problems.push(problem(Check::NodeadmRunEnabled, NODEADM_RUN, what));
    }
    let path = KUBELET_DROP_IN;
    let asserts = format!("AssertPathExists={ADMITTED_PATH}");
    if facts.files.contains_key(path) && !facts.gate.lines().any(|line| line.trim() == asserts) {
        problems.push(problem(Check::GateMissing, path, format!("it lacks `{asserts}`")));
    }
    problems
}

fn driver(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let has = |part: &str| facts.driver_parts.contains(part);
    let in_trees = |name: &str| facts.driver_trees.contains(name);
    if !(has(RESOLVER) || has(LOADER) || TREES.iter().any(|tree| in_trees(tree))) {
        // An image without GPUs.
        return problems;
    }
    if has(RESOLVER) || TREES.iter().any(|tree| in_trees(tree)) {
        for tree in TREES.into_iter().filter(|tree| !in_trees(tree)) {
            let what = "the driver tree is not there: some GPU families have no driver";
            problems.push(problem(Check::DriverTreeMissing, format!("/opt/nvidia/{tree}"), what));
        }
        for mark in FROZEN.into_iter().filter(|mark| in_trees(mark)) {
            let what = "the driver has been chosen for the GPU of the machine it was built on";
            problems.push(problem(Check::DriverTreeFrozen, format!("/opt/nvidia/{mark}"), what));
        }
    }
    for program in TOOLKIT.into_iter().filter(|program| !has(program)) {
        problems.push(problem(Check::ToolkitMissing, program, "it is not there"));
    }
    problems
}

fn leftovers(facts: &Facts) -> Vec<Problem> {
    let of = |(path, why): &(String, &'static str)| problem(Check::Leftover, path.clone(), *why);
    facts.leftovers.iter().map(of).collect()
}
