//! Every row of the agent's check catalogue has an entry in the corpus: the right reason, and what
//! follows from it.

use std::path::Path;

use agent::gpu::catalogue::{Action, Check};
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

/// What a case shows of what follows.
fn shows(case: &Case, check: Check, action: Action, is_gate: bool) -> bool {
    let entry = check.entry();
    let names = |case: &Case| case.reason.is_some_and(|named| entry.reasons.contains(&named.0));
    match (action, is_gate) {
        (Action::Block, _) => names(case) && case.expected() == Outcome::Failed,
        (Action::Condition | Action::Event, true) => {
            names(case) && case.expected() == Outcome::Ready
        }
        (Action::Condition, false) => {
            case.then
                .iter()
                .any(|step| matches!(step, Step::Ill(reason, _) if entry.reasons.contains(reason)))
                || names(case)
        }
        (Action::Event, false) => names(case),
        (Action::Metric, _) => false,
    }
}

#[test]
fn some_entry_of_each_check_shows_what_follows() {
    let corpus = corpus();
    for check in Check::ALL {
        let entry = check.entry();
        let claimants = claimants(&corpus, *check);
        if claimants.is_empty() {
            continue;
        }
        let (action, is_gate) = match (entry.gate, entry.after) {
            (Some(action), _) => (action, true),
            (None, Some(action)) => (action, false),
            (None, None) => unreachable!("the catalogue's own test refuses such a row"),
        };
        let shown = claimants.iter().any(|case| shows(case, *check, action, is_gate));
        assert!(shown, "no case shows that {} ends in {action:?}", entry.id);
    }
}
