//! How much of the node's memory kubelet keeps from pods, as nodeadm has written it.
//!
//! nodeadm reserves 11 MiB for each pod that may run and 255 MiB; with prefix delegation or a
//! generous `maxPodsExpression` that is most of a small node, and nothing says so.

use contract::{Finding, Phase, Reason};
use serde_json::Value;

use super::KUBELET_CONFIG;
use crate::host::{Root, files};

/// What the user's `spec.kubelet.config` is written to; kubelet merges it over its configuration.
const DROP_IN: &str = "/etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf";

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Reserved for kubelet and for the system.
    pub reserved: u64,
    /// All that the node has.
    pub total: u64,
}

/// What is on the disk; none when it cannot be read.
#[must_use]
pub fn look(root: &Root) -> Option<Memory> {
    let read = |path: &str| -> Value {
        let bytes = files::read(&root.path(path)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let (config, drop_in) = (read(KUBELET_CONFIG), read(DROP_IN));
    let reserved = |field: &str| {
        let of = |document: &Value| bytes(document.get(field)?.get("memory")?.as_str()?);
        of(&drop_in).or_else(|| of(&config)).unwrap_or_default()
    };
    let reserved = reserved("kubeReserved").saturating_add(reserved("systemReserved"));
    let text = files::read_text(&root.path("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Memory { reserved, total: kibibytes.checked_mul(1024)? })
}

/// Said when more than half of the memory is kept from pods.
#[must_use]
pub fn finding(memory: Option<Memory>) -> Option<Finding> {
    let Memory { reserved, total } = memory?;
    let mebibytes = |bytes: u64| bytes >> 20;
    let what = format!(
        "{} MiB of {} MiB are reserved for kubelet and the system",
        mebibytes(reserved),
        mebibytes(total)
    );
    let is_much = total > 0 && reserved > total / 2;
    is_much.then(|| Finding::new(Reason::MemoryReservedTooLarge, Phase::Bootstrap, what))
}

/// A quantity of Kubernetes' in bytes: `1355Mi`, `2G`, `1073741824`.
fn bytes(quantity: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let quantity = quantity.trim();
    let unit = UNITS.iter().find_map(|(unit, worth)| Some((quantity.strip_suffix(unit)?, *worth)));
    let (number, worth) = unit.unwrap_or((quantity, 1));
    number.parse::<u64>().ok()?.checked_mul(worth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes_own() {
        for (text, expected) in [
            ("1355Mi", Some(1_420_820_480)),
            ("2G", Some(2_000_000_000)),
            ("1024", Some(1024)),
            ("0", Some(0)),
            ("many", None),
            ("-1Mi", None),
            ("99999999999999999999Ti", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn more_than_half_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(look(&root), None);
        write("/proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n");
        write(KUBELET_CONFIG, r#"{"kubeReserved": {"memory": "8362Mi", "cpu": "1"}}"#);
        let found = finding(look(&root)).unwrap();
        assert_eq!(found.reason, Reason::MemoryReservedTooLarge);
        assert_eq!(found.summary, "8362 MiB of 15625 MiB are reserved for kubelet and the system");
        write(
            DROP_IN,
            r#"{"kubeReserved": {"memory": "1Gi"}, "systemReserved": {"memory": "1Gi"}}"#,
        );
        assert_eq!(look(&root).map(|memory| memory.reserved), Some(2 << 30));
        assert_eq!(finding(look(&root)), None);
        write(DROP_IN, "garbage");
        assert!(finding(look(&root)).is_some());
        assert_eq!(finding(None), None);
    }
}
