//! What a lease says, and when it is over. Pure, but for the look at who this process is.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a lease lasts without being renewed.
pub const LASTING: Duration = Duration::from_secs(90);
/// How often its holder renews it.
pub const RENEWAL: Duration = Duration::from_secs(20);
/// So long before its end its holder stops believing in it: longer than one attempt of a call, which
/// may be under way when the proof is given.
pub const MARGIN: Duration = Duration::from_secs(30);
/// So long after its end another may take over: what two operators' clocks may differ by.
pub const SKEW: Duration = Duration::from_secs(15);

/// A process, told apart from every other on its machine and from those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Name of the machine, for people.
    pub host: String,
    /// The machine's boot and the process namespace: whose process ids these are.
    pub space: Option<String>,
    /// Process id.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot: process ids are used again.
    pub started: Option<u64>,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Tells one run from every other.
    pub run: String,
    /// Who the credentials are: an ARN.
    pub holder: String,
    /// The process that holds it.
    pub process: Process,
    /// Since when.
    pub since: Timestamp,
    /// Until when, unless it is renewed.
    pub until: Timestamp,
    /// Whether its holder has given it back.
    #[serde(default)]
    pub released: bool,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, process: Process { host, pid, .. }, since, .. } = self;
        let since = since.strftime("%Y-%m-%dT%H:%M:%SZ");
        write!(f, "`{holder}` on {host} (pid {pid}) holds its lease since {since}")
    }
}

impl Record {
    /// Whether nobody holds it any more. `is_gone` says whether a process is known to have ended.
    #[must_use]
    pub fn is_over(&self, now: Timestamp, is_gone: impl FnOnce(&Process) -> bool) -> bool {
        self.released || self.until + SKEW < now || is_gone(&self.process)
    }
}

/// Who wants the lease.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Tells one run from every other.
    pub run: String,
    /// Who the credentials are: an ARN.
    pub holder: String,
    /// The process.
    pub process: Process,
}

impl Claim {
    /// This process's claim.
    #[must_use]
    pub fn of_this_process(holder: &str) -> Self {
        let process = Process::this();
        let moment = Timestamp::now().as_nanosecond().to_string();
        let seed = [process.host.as_str(), &process.pid.to_string(), &moment];
        Self { run: crate::layers::names::spec_hash(&seed), holder: holder.to_owned(), process }
    }

    /// The lease that it makes at a moment, held since another.
    #[must_use]
    pub fn record(&self, since: Timestamp, now: Timestamp) -> Record {
        Record {
            run: self.run.clone(),
            holder: self.holder.clone(),
            process: self.process.clone(),
            since,
            until: now + LASTING,
            released: false,
        }
    }
}

impl Process {
    fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
        let host = read("/proc/sys/kernel/hostname");
        let pid = std::process::id();
        Self {
            host: host.unwrap_or_else(|| "an unnamed host".to_owned()),
            space: space(),
            pid,
            started: started(pid),
        }
    }

    /// Whether it was a process of this machine, and is known to have ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let here = self.space.is_some() && self.space == space();
        here && self.started.is_some() && started(self.pid) != self.started
    }
}

/// The machine's boot and this process's namespace of process ids, where the kernel tells.
fn space() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// When a process started, from `/proc/<pid>/stat` (proc(5), field 22); none when it does not run. One
/// that has ended and was not waited for runs no more.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_204_800 + second).unwrap()
    }

    #[test]
    fn a_lease_is_over_by_time_by_word_or_with_its_process() {
        let claim = Claim::of_this_process("arn:aws:iam::1:user/a");
        let mut lease = claim.record(at(0), at(0));
        let lives = |_: &Process| false;
        assert!(!lease.is_over(at(90), lives) && !lease.is_over(at(105), lives));
        assert!(lease.is_over(at(106), lives) && lease.is_over(at(1), |_| true));
        lease.released = true;
        assert!(lease.is_over(at(1), lives));
    }

    #[test]
    fn only_a_process_of_this_machine_is_known_to_be_gone() {
        let me = Process::this();
        assert!(!me.is_gone());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let before = Process { pid: child.id(), started: Some(1), ..me.clone() };
        child.wait().unwrap();
        assert!(before.is_gone());
        let elsewhere = Process { space: Some("another boot".into()), ..before.clone() };
        assert!(!elsewhere.is_gone());
        assert!(!Process { space: None, ..before.clone() }.is_gone());
        assert!(!Process { started: None, ..before }.is_gone());
    }

    #[test]
    fn a_lease_reads_as_a_sentence() {
        let mut lease = Claim::of_this_process("arn:aws:iam::1:user/a").record(at(0), at(0));
        lease.process.host = "ci-7".into();
        lease.process.pid = 42;
        let said = "`arn:aws:iam::1:user/a` on ci-7 (pid 42) holds its lease since \
                    2026-11-20T20:00:00Z";
        assert_eq!(lease.to_string(), said);
        let wire = serde_json::to_string(&lease).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&wire).unwrap(), lease);
    }
}
