//! Every row of the agent's check catalogue has an entry in the corpus: the right reason, and what
//! follows from it.

use std::path::Path;

use agent::gpu::catalogue::{Action, Check};
use contract::Phase;
use contract::reason::Owner;
use lab::corpus::case::{Case, Corpus, Outcome, Step};

fn corpus() -> Corpus {
    Corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")).unwrap()
}

fn claimants(corpus: &Corpus, check: Check) -> Vec<&Case> {
    let id = check.entry().id;
    corpus.cases.iter().filter(|case| case.checks.iter().any(|claimed| claimed == id)).collect()
}

#[test]
fn every_check_has_an_entry_or_an_excuse() {
    let corpus = corpus();
    for check in Check::ALL {
        let id = check.entry().id;
        let is_excused = corpus.missing.contains_key(id);
        let has_entry = !claimants(&corpus, *check).is_empty();
        assert!(has_entry || is_excused, "{id} has neither a case nor a line in missing.yaml");
        assert!(!(has_entry && is_excused), "{id} has a case: take it out of missing.yaml");
    }
    let claimed = corpus.cases.iter().flat_map(|case| &case.checks);
    let excused = corpus.missing.keys().filter(|name| name.contains('.'));
    for id in claimed.chain(excused) {
        let known = Check::ALL.iter().any(|check| check.entry().id == id);
        assert!(known, "`{id}` is no check of the catalogue");
    }
}

#[test]
fn every_entry_of_a_check_names_one_of_its_reasons() {
    let corpus = corpus();
    for check in Check::ALL {
        let entry = check.entry();
        for case in claimants(&corpus, *check) {
            let named = case.names().any(|reason| entry.reasons.contains(&reason));
            assert!(named || entry.reasons.is_empty(), "{} names none of {}", case.case, entry.id);
        }
    }
}

/// Whether a case shows what follows.
fn shows(case: &Case, check: Check, action: Action, is_gate: bool) -> bool {
    let reasons = check.entry().reasons;
    let is_named = case.reason.is_some_and(|named| reasons.contains(&named.0));
    let comes_to = |wanted: Outcome| is_named && case.expected() == wanted;
    let later = |is_it: fn(&Step) -> bool| {
        let of_check = |step: &&Step| step.reason().is_none_or(|reason| reasons.contains(&reason));
        case.then.iter().filter(of_check).any(is_it)
    };
    // The last phase looks at what kubelet offers: the join's own verdict is behind the gates.
    let of_ready =
        case.reason.is_some_and(|named| named.0.entry().owner == Owner::Phase(Phase::Ready));
    match (action, is_gate) {
        (Action::Condition | Action::Event, false) if of_ready => is_named,
        (Action::Block, _) => comes_to(Outcome::Failed),
        (Action::Condition | Action::Event, true) => comes_to(Outcome::Ready),
        (Action::Condition, false) => {
            later(|step| matches!(step, Step::Ill(..) | Step::Restarts(..) | Step::Falls(..)))
        }
        (Action::Event, false) => later(|step| matches!(step, Step::Event(..) | Step::Told(..))),
        (Action::Metric, _) => later(|step| matches!(step, Step::Metric(..))),
    }
}

#[test]
fn some_entry_of_each_check_shows_what_follows() {
    let corpus = corpus();
    let mut unshown = Vec::new();
    for check in Check::ALL {
        let entry = check.entry();
        let claimants = claimants(&corpus, *check);
        if claimants.is_empty() {
            continue;
        }
        // Where it is looked at twice, the gate's is the costlier.
        let (action, is_gate) = match (entry.gate, entry.after) {
            (Some(action), _) => (action, true),
            (None, Some(action)) => (action, false),
            (None, None) => panic!("{} does nothing", entry.id),
        };
        if !claimants.iter().any(|case| shows(case, *check, action, is_gate)) {
            unshown.push((entry.id, action));
        }
    }
    assert_eq!(unshown, [], "rows, and what no case shows to follow from them");
}

/// Whether a case shows that it is over.
fn recovers(case: &Case) -> bool {
    case.then.iter().any(|step| match step {
        Step::Lift | Step::Ill(..) | Step::Restarts(..) | Step::Well => true,
        Step::Event(..) | Step::Metric(..) => true,
        Step::Fault(_) | Step::KillJoin | Step::Reboot | Step::Falls(..) | Step::Told(..) => false,
    })
}

/// Rows whose end no case shows: what is over only with another machine or image, or is said once.
const ENDLESS: [&str; 10] = [
    "gpu.remap_exhaust",
    "gpu.sram_threshold",
    "nccl.segv",
    "drv.min_version",
    "drv.too_old",
    "efa.topology",
    "ctk.runtime",
    "k8s.offer",
    "mem.peermem",
    "canary.cuda",
];

#[test]
fn some_entry_of_each_check_shows_its_end() {
    let corpus = corpus();
    let mut endless = Vec::new();
    for check in Check::ALL {
        let id = check.entry().id;
        let claimants = claimants(&corpus, *check);
        if claimants.is_empty() || ENDLESS.contains(&id) {
            continue;
        }
        if !claimants.into_iter().any(recovers) {
            endless.push(id);
        }
    }
    assert_eq!(endless, Vec::<&str>::new(), "rows whose end no case shows");
}
