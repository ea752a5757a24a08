//! `docs/operate.md` is the table of reasons, written out: it never drifts from the code.

use std::fmt::Write as _;
use std::path::Path;

use contract::reason::{Owner, Reason, Weight};

const HEAD: &str = "# Operating: what a NotReady or missing node says, by reason

Written from the table in `contract/src/reason.rs` by `make operate-doc`; do not edit by hand.

`control diagnose NODE` gives the reason of one node, `control status` the histogram of a fleet, and
`rollcall-agent explain REASON` this page's entry on the node itself. A *hard* reason keeps kubelet
from starting; an *observed* one does so where the pool's `enforceReasons` says `gate`, and else the
node joins with the reason in its condition; a *soft* one is reported, and the node joins.

";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, belongs) in groups() {
        writeln!(page, "## {title}\n").unwrap();
        for reason in Reason::ALL.iter().filter(|reason| belongs(reason.entry().owner)) {
            let entry = reason.entry();
            let weight = match entry.weight {
                Weight::Hard => "hard",
                Weight::Observed => "observed",
                Weight::Soft => "soft",
            };
            writeln!(page, "### {}\n\n{} *({weight})*\n", entry.name, entry.meaning).unwrap();
            let hint = reason.hint_for("<cluster>", "<pool>", "<instance-id>");
            writeln!(page, "Do: {hint}\n").unwrap();
            if !entry.explains.is_empty() {
                let names: Vec<_> = entry.explains.iter().map(|r| r.name()).collect();
                writeln!(page, "Explains: {}\n", names.join(", ")).unwrap();
            }
        }
    }
    page.trim_end().to_owned() + "\n"
}

type Belongs = Box<dyn Fn(Owner) -> bool>;

fn groups() -> Vec<(String, Belongs)> {
    let mut groups: Vec<(String, Belongs)> = contract::Phase::ALL
        .into_iter()
        .map(|phase| {
            let belongs: Belongs = Box::new(move |owner| owner == Owner::Phase(phase));
            (format!("In {phase}: {}", phase.proves()), belongs)
        })
        .collect();
    groups.push(("After the join".into(), Box::new(|owner| owner == Owner::AfterJoin)));
    groups.push(("In any phase".into(), Box::new(|owner| owner == Owner::AnyPhase)));
    groups.push(("Seen only from outside".into(), Box::new(|owner| owner == Owner::Outside)));
    groups
}

#[test]
fn operate_page_is_the_table_of_reasons() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == page(), "docs/operate.md is not the table any more: make operate-doc");
}
