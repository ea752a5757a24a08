//! What each unit's sandbox claims, and what the probe in it must have found. The table covers every line of the
//! units that is about a sandbox; a test holds it to that.

use std::collections::BTreeMap;
use std::fmt;

/// A unit of ours with a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// The watch.
    Watch,
    /// The join.
    Join,
}

impl Unit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Watch, Self::Join];

    /// The unit's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watch => contract::names::UNIT_WATCH,
            Self::Join => contract::names::UNIT_JOIN,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watch => "watch",
            Self::Join => "join",
        })
    }
}

/// The lines of a unit, what the probe tries about them, and what comes of it in the watch and in the join.
type Row = (&'static [&'static str], &'static str, &'static str, &'static str);

const DEVICES: &[&str] = &["DevicePolicy", "DeviceAllow"];
const PATHS: &[&str] = &["ProtectSystem", "ReadWritePaths"];
const CALLS: &[&str] = &["SystemCallFilter", "SystemCallErrorNumber"];

/// A device that is let through and has no driver answers ENXIO; one that is not, EPERM.
pub const ROWS: &[Row] = &[
    (DEVICES, "device-gpu", "ENXIO", "ENXIO"),
    (DEVICES, "device-gpu-other", "ENXIO", "ENXIO"),
    (DEVICES, "device-control", "ENXIO", "ENXIO"),
    (DEVICES, "device-disk", "EPERM", "EPERM"),
    (DEVICES, "device-port", "EPERM", "EPERM"),
    (DEVICES, "device-kernel-log", "ok", "ok"),
    (DEVICES, "device-kernel-log-write", "EPERM", "EPERM"),
    (DEVICES, "device-null", "ok", "ok"),
    (PATHS, "write-usr", "EROFS", "EROFS"),
    (PATHS, "write-etc", "EROFS", "EROFS"),
    (PATHS, "write-var-lib", "EROFS", "EROFS"),
    (PATHS, "write-boot", "EROFS", "EROFS"),
    // Its mount is writable to both; the watch's rights do not reach.
    (PATHS, "write-run", "EACCES", "ok"),
    (PATHS, "write-nodeadm-dropins", "EROFS", "ok"),
    (PATHS, "write-cni", "EROFS", "ok"),
    (&["StateDirectory"], "state", "ok", "ok"),
    (&["RuntimeDirectory"], "runtime", "ok", "ok"),
    (&["PrivateTmp"], "write-tmp", "ok", "ok"),
    (&["PrivateTmp", "PrivateMounts"], "tmp-of-others", "hidden", "hidden"),
    (&["ProtectHome"], "home", "hidden", "hidden"),
    (&["ProtectKernelTunables"], "mount-sysctl", "read-only", "read-only"),
    (&["ProtectControlGroups"], "mount-cgroup", "read-only", "read-only"),
    // An XID names a process: no ProtectProc=.
    (&[], "pid-1", "visible", "visible"),
    (&["RestrictAddressFamilies"], "socket-unix", "ok", "ok"),
    (&["RestrictAddressFamilies"], "socket-inet", "ok", "ok"),
    (&["RestrictAddressFamilies"], "socket-netlink", "EAFNOSUPPORT", "ok"),
    (&["RestrictAddressFamilies"], "socket-packet", "EAFNOSUPPORT", "EAFNOSUPPORT"),
    (&["RestrictNamespaces"], "unshare-user", "EPERM", "EPERM"),
    (&["RestrictNamespaces"], "unshare-mount", "EPERM", "EPERM"),
    (&["LockPersonality"], "personality", "EPERM", "EPERM"),
    (&["RestrictRealtime"], "realtime", "EPERM", "EPERM"),
    (&["RestrictSUIDSGID"], "set-uid-bit", "EPERM", "EPERM"),
    (CALLS, "rlimit", "EPERM", "ok"),
    (CALLS, "mount", "EPERM", "EPERM"),
    (CALLS, "reboot", "EPERM", "EPERM"),
    (CALLS, "ptrace", "EPERM", "EPERM"),
    (CALLS, "bpf", "EPERM", "EPERM"),
    (&["ProtectClock"], "clock", "EPERM", "EPERM"),
    (&["ProtectHostname"], "hostname", "EPERM", "EPERM"),
    (&["ProtectKernelModules"], "module", "EPERM", "EPERM"),
    // CAP_SYSLOG; and CHOWN, DAC_OVERRIDE, FOWNER, KILL.
    (&["CapabilityBoundingSet"], "capabilities", "0000000400000000", "000000040000002b"),
    (&["AmbientCapabilities"], "capabilities-effective", "0000000400000000", "000000040000002b"),
    (&["NoNewPrivileges"], "no-new-privileges", "1", "1"),
    (CALLS, "seccomp", "2", "2"),
    (&["DynamicUser"], "user", "own", "root"),
    (&["OOMScoreAdjust"], "oom-score", "-500", "-999"),
    (&["LimitCORE"], "core-limit", "0", "0"),
    (&["UMask"], "umask", "0022", "0022"),
    (&[], "done", "ok", "ok"),
];

/// What the probes have said: by unit and name.
pub type Found = BTreeMap<(Unit, String), String>;

/// Reads the lines that begin with `PROBE`.
#[must_use]
pub fn read(lines: &[String]) -> Found {
    let mut found = Found::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["PROBE", unit, name, outcome] = words[..]
            && let Some(unit) = Unit::ALL.into_iter().find(|known| known.to_string() == unit)
        {
            found.insert((unit, name.to_owned()), outcome.to_owned());
        }
    }
    found
}

/// Whether both probes have said all that they have to say.
#[must_use]
pub fn is_whole(found: &Found) -> bool {
    Unit::ALL.into_iter().all(|unit| found.contains_key(&(unit, "done".to_owned())))
}

/// What is not as it should be.
#[must_use]
pub fn wrong(found: &Found) -> Vec<String> {
    let mut wrong = Vec::new();
    for (lines, name, watch, join) in ROWS {
        for (unit, wanted) in [(Unit::Watch, watch), (Unit::Join, join)] {
            let seen = found.get(&(unit, (*name).to_owned())).map_or("nothing", String::as_str);
            if seen != *wanted {
                let of = lines.join(", ");
                wrong.push(format!("{}: {name} ({of}) is {seen}, must be {wanted}", unit.name()));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `[Service]` that are no part of a sandbox, or that nothing inside can show.
    const NOT_PROBED: [&str; 27] = [
        "Type",
        "NotifyAccess",
        "ExecStart",
        "WatchdogSec",
        "Restart",
        "RestartSec",
        "TimeoutStartSec",
        "TimeoutStartFailureMode",
        "TimeoutStopSec",
        "SendSIGKILL",
        "RuntimeDirectoryMode",
        "RuntimeDirectoryPreserve",
        "StateDirectoryMode",
        // Seen only when the unit ends.
        "RemoveIPC",
        // A call of another architecture takes a program of it.
        "SystemCallArchitectures",
        "OnFailure",
        "Description",
        "Documentation",
        "After",
        "Before",
        "Wants",
        "Requires",
        "StartLimitIntervalSec",
        "StartLimitBurst",
        "WantedBy",
        "Also",
        "ExecStartPre",
    ];

    #[test]
    fn every_line_of_the_sandboxes_has_a_row() {
        for text in [
            include_str!("../../../../systemd/rollcall-agent.service"),
            include_str!("../../../../systemd/rollcall-join.service"),
        ] {
            for line in text.lines().filter(|line| !line.starts_with(['#', '[', ' '])) {
                let Some((key, _)) = line.split_once('=') else { continue };
                let probed = ROWS.iter().any(|(lines, ..)| lines.contains(&key));
                assert!(probed || NOT_PROBED.contains(&key), "nothing shows that {line} holds");
            }
        }
    }

    #[test]
    fn every_row_is_tried_by_the_probe() {
        let probe = include_str!("probe.pl");
        for (_, name, ..) in ROWS {
            let stem = name.strip_prefix("write-").unwrap_or(name);
            assert!(probe.contains(&format!("\"{stem}\"")), "{name}");
        }
    }

    #[test]
    fn what_is_missing_or_otherwise_is_wrong() {
        let line = |unit: Unit, name: &str, outcome: &str| format!("PROBE {unit} {name} {outcome}");
        let mut lines: Vec<String> = Vec::new();
        for (_, name, watch, join) in ROWS {
            lines.push(line(Unit::Watch, name, watch));
            lines.push(line(Unit::Join, name, join));
        }
        assert_eq!(wrong(&read(&lines)), [""; 0]);
        assert!(is_whole(&read(&lines)));
        lines.push(line(Unit::Watch, "device-disk", "ok"));
        lines.retain(|line| !line.contains("join clock"));
        let wrong = wrong(&read(&lines));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("device-disk (DevicePolicy, DeviceAllow) is ok, must be EPERM"));
        assert!(wrong[1].contains("clock (ProtectClock) is nothing, must be EPERM"), "{wrong:?}");
    }
}
