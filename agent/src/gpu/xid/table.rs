//! What each code means: from the table of all XIDs, our overrides, and the agent's configuration.
//!
//! `xid.csv` is NVIDIA's catalogue beside what eks-node-monitoring-agent makes of it (its `eks_nma`
//! column). A code's class follows from NVIDIA's immediate action; [`OURS`] says where we differ, and
//! why. What nobody knows is an event, never silence.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use contract::agent_config::{XidClass, XidRule};

use super::parse::{Record, Severity};

const CSV: &str = include_str!("xid.csv");

/// Where we do not follow NVIDIA's immediate action.
const OURS: &[(u32, XidClass)] = {
    use XidClass::{App, Event, Info, Reboot, Replace, Reset};
    &[
        // NVIDIA ignores them; whose process it was is worth an event.
        (37, App),
        (38, App),
        (43, App),
        (44, App),
        (66, App),
        (67, App),
        (137, App),
        // The driver's own field 144 says whether a reset is due.
        (63, Event),
        // The GSP rarely comes back by a reset; Karpenter replaces for them, too.
        (119, Replace),
        (120, Replace),
        (142, Replace),
        // The retirement did not work; field 145 and the ECC counters say what is left.
        (157, Event),
        (159, Event),
        (160, Event),
        (161, Event),
        // From here on NVIDIA's catalogue names no action.
        (162, Info),
        (163, Info),
        (164, Info),
        (165, Info),
        (166, Reset),
        (167, Reboot),
        (168, Event),
        (169, Reset),
        (170, Event),
        (171, Event),
        (172, Reset),
        (173, Reset),
    ]
};

/// What a code means on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What follows from it.
    pub class: XidClass,
    /// How often it must come on one GPU for that; before, it is an event.
    pub threshold: u32,
    /// Within which time; none: within the boot.
    pub window: Option<Duration>,
}

/// What every code means on this node.
#[derive(Clone, Debug, Default)]
pub struct Table {
    configured: BTreeMap<u32, XidRule>,
}

impl Table {
    /// The table, with what the agent's configuration says otherwise.
    #[must_use]
    pub const fn new(configured: BTreeMap<u32, XidRule>) -> Self {
        Self { configured }
    }

    /// What a record means.
    #[must_use]
    pub fn rule(&self, record: &Record) -> Rule {
        let once = |class| Rule { class, threshold: 1, window: None };
        if record.switch {
            return once(match record.severity {
                Some(Severity::Fatal) => XidClass::Link,
                _ => XidClass::Event,
            });
        }
        if let Some(rule) = self.configured.get(&record.code) {
            return Rule {
                class: rule.class,
                threshold: rule.threshold,
                window: rule.window_seconds.map(Duration::from_secs),
            };
        }
        // The line itself knows better than the code: NVSentinel #1357.
        if record.severity == Some(Severity::Nonfatal) {
            return once(XidClass::Event);
        }
        once(class(record.code))
    }
}

/// What a code means when nothing else is said.
#[must_use]
pub fn class(code: u32) -> XidClass {
    known().get(&code).map_or(XidClass::Event, |row| row.class)
}

/// NVIDIA's words for a code; none for one that the table does not have.
#[must_use]
pub fn meaning(code: u32) -> Option<&'static str> {
    known().get(&code).map(|row| row.meaning)
}

struct Row {
    class: XidClass,
    meaning: &'static str,
}

fn known() -> &'static BTreeMap<u32, Row> {
    static KNOWN: OnceLock<BTreeMap<u32, Row>> = OnceLock::new();
    KNOWN.get_or_init(|| CSV.lines().filter_map(row).collect())
}

fn row(line: &'static str) -> Option<(u32, Row)> {
    let mut columns = columns(line).into_iter();
    let code: u32 = columns.next()?.parse().ok()?;
    let (meaning, immediate) = (columns.nth(1)?, columns.next()?);
    let nma = columns.nth(3)?;
    let ours = OURS.iter().find(|(ours, _)| *ours == code).map(|(_, class)| *class);
    let class = ours.unwrap_or_else(|| of_immediate(immediate, nma));
    let short = |text: &'static str, at| text.split_once(at).map_or(text, |(before, _)| before);
    let meaning = short(short(meaning, " | "), " -- ");
    Some((code, Row { class, meaning }))
}

/// The columns of a line; a quoted one may hold commas.
fn columns(line: &str) -> Vec<&str> {
    let mut columns = Vec::new();
    let mut rest = line;
    loop {
        let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (column, after) = match quoted {
            Some((column, after)) => (column, after.strip_prefix(',')),
            None => match rest.split_once(',') {
                Some((column, after)) => (column, Some(after)),
                None => (rest, None),
            },
        };
        columns.push(column);
        match after {
            Some(after) => rest = after,
            None => return columns,
        }
    }
}

/// The class of NVIDIA's immediate action. EC2 has no operator who could look into the machine: what
/// asks for one is replaced.
fn of_immediate(immediate: &str, nma: &str) -> XidClass {
    match immediate {
        "RESTART_APP" => XidClass::App,
        "IGNORE" | "WORKFLOW_XID_45" | "UPDATE_SWFW" => XidClass::Info,
        "RESET_GPU" | "WORKFLOW_XID_48" => XidClass::Reset,
        "RESTART_VM" => XidClass::Reboot,
        "RESTART_BM" | "CHECK_MECHANICALS" => XidClass::Replace,
        "WORKFLOW_NVLINK_ERR" | "WORKFLOW_NVLINK5_ERR" => XidClass::Link,
        // The codes that NVIDIA calls unused ask for support as well.
        "CONTACT_SUPPORT" if nma == "Fatal" => XidClass::Replace,
        _ => XidClass::Event,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn xid(code: u32) -> Record {
        Record { code, ..Record::default() }
    }

    /// The classes of all codes as the table makes them, reviewed by eye.
    #[test]
    fn every_code_has_its_class() {
        let mut text = String::new();
        for (code, row) in known() {
            writeln!(text, "{code} {} {}", row.class.name(), row.meaning).unwrap();
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gpu/xid/classes.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert!(text == std::fs::read_to_string(golden).unwrap(), "{text}");
    }

    #[test]
    fn the_table_is_whole() {
        let rows = CSV.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
        assert_eq!(known().len(), rows, "a line cannot be read, or a code stands twice");
        for (code, _) in OURS {
            assert!(known().contains_key(code), "{code} is not in the table");
        }
        assert_eq!(meaning(79), Some("GPU has fallen off the bus"));
        assert_eq!((class(999), meaning(999)), (XidClass::Event, None));
    }

    /// Whatever eks-node-monitoring-agent calls fatal, we do; but for 63, which the driver's own
    /// field 144 decides.
    #[test]
    fn nothing_that_is_fatal_elsewhere_is_lost() {
        for line in CSV.lines().skip(1) {
            let columns = columns(line);
            let Ok(code) = columns[0].parse::<u32>() else { continue };
            if columns[7] == "Fatal" && code != 63 {
                assert!(class(code).is_fatal(), "{code}");
            }
        }
    }

    #[test]
    fn the_line_and_the_configuration_come_first() {
        let table = Table::default();
        let mut link = xid(145);
        assert_eq!(table.rule(&link).class, XidClass::Link);
        link.severity = Some(Severity::Nonfatal);
        assert_eq!(table.rule(&link).class, XidClass::Event);

        let mut switch = Record { switch: true, ..xid(79) };
        assert_eq!(table.rule(&switch).class, XidClass::Event, "an SXid is no XID");
        switch.severity = Some(Severity::Fatal);
        assert_eq!(table.rule(&switch).class, XidClass::Link);

        let rule = XidRule { class: XidClass::Reset, threshold: 3, window_seconds: Some(3600) };
        let table = Table::new(BTreeMap::from([(43, rule)]));
        assert_eq!(
            table.rule(&xid(43)),
            Rule { class: XidClass::Reset, threshold: 3, window: Some(Duration::from_secs(3600)) }
        );
        assert_eq!(table.rule(&xid(31)).class, XidClass::App);
    }
}
