//! The machine's processes as `/proc` shows them: who is alive, who descends from whom, and how to
//! end them by pid. A pid alone names nobody for long, so it always goes with its start time.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process for as long as it lives: its pid and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub started: u64,
}

impl ProcessId {
    /// The process that has `pid` now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Sends `signal`, unless the pid has been taken by another process meanwhile.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // A process that ends between the check and here is what was wanted.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Whether it names `directory` in its command line or environment, or works below it.
    #[must_use]
    pub fn works_for(self, directory: &Path) -> bool {
        let named = directory.as_os_str().as_encoded_bytes();
        let names = |file: &str| {
            let raw = fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
            raw.windows(named.len()).any(|part| part == named)
        };
        let works_in = fs::read_link(format!("/proc/{}/cwd", self.pid));
        works_in.is_ok_and(|at| at.starts_with(directory)) || names("cmdline") || names("environ")
    }

    /// Its command line, arguments separated by spaces.
    #[must_use]
    pub fn command_line(self) -> String {
        let raw = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    state: char,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields are counted from behind the command name, which may hold blanks and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn all() -> Vec<(ProcessId, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Stat::read(pid).map(|s| (ProcessId { pid, started: s.started }, s)))
        .collect()
}

/// Everything that descends from `root`, without `root` itself and without zombies.
#[must_use]
pub fn descendants(root: i32) -> Vec<ProcessId> {
    let all = all();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, s)| s.parent == parent).map(|(id, _)| id.pid));
        next += 1;
    }
    all.iter()
        .filter(|(id, stat)| stat.state != 'Z' && family[1..].contains(&id.pid))
        .map(|(id, _)| *id)
        .collect()
}

/// The children of `parent` that run.
#[must_use]
pub fn children(parent: i32) -> Vec<ProcessId> {
    let all = all().into_iter();
    all.filter(|(_, s)| s.parent == parent && s.state != 'Z').map(|(id, _)| id).collect()
}

/// Zombies whose parent is `parent`: orphans that a subreaper inherited, and children that their
/// owner has not waited for yet.
#[must_use]
pub fn zombies_of(parent: i32) -> Vec<i32> {
    let all = all().into_iter();
    all.filter(|(_, s)| s.parent == parent && s.state == 'Z').map(|(id, _)| id.pid).collect()
}

/// Processes that belong to the lab in `dir`, even when its supervisor has been killed: those that
/// work below its nodes with a node's IMDS in their environment, its emulator, and its real
/// control plane.
///
/// A shell that somebody opened below the directory has no such environment and is left alone.
#[must_use]
pub fn of_lab(dir: &Path) -> Vec<ProcessId> {
    let nodes = dir.join("nodes");
    all()
        .into_iter()
        .filter(|(id, stat)| {
            stat.state != 'Z'
                && (is_node_process(id.pid, &nodes)
                    || is_emulator(id.pid, dir)
                    || is_control_plane(id.pid, dir))
        })
        .map(|(id, _)| id)
        .collect()
}

/// Processes that listen on a TCP port, on whatever address.
#[must_use]
pub fn listening_on(port: u16) -> Vec<ProcessId> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let sockets: Vec<PathBuf> = tables
        .iter()
        .flatten()
        .flat_map(|table| listening_inodes(table, port))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let holds = |id: &ProcessId| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", id.pid)).into_iter().flatten();
        let mut targets = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| sockets.contains(&target))
    };
    all().into_iter().map(|(id, _)| id).filter(holds).collect()
}

/// Inodes of the sockets of a `/proc/net/tcp` that listen on `port` (proc_net_tcp(5)).
fn listening_inodes(table: &str, port: u16) -> Vec<&str> {
    const LISTEN: &str = "0A";
    let wanted = format!("{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| {
        row.get(3) == Some(&LISTEN)
            && row.get(1).and_then(|local| local.rsplit(':').next()) == Some(wanted.as_str())
    })
    .filter_map(|row| row.get(9).copied())
    .collect()
}

/// Processes that run for the node whose root directory is `root`.
#[must_use]
pub fn of_node(root: &Path) -> Vec<ProcessId> {
    all()
        .into_iter()
        .filter(|(id, stat)| stat.state != 'Z' && is_node_process(id.pid, root))
        .map(|(id, _)| id)
        .collect()
}

fn is_node_process(pid: i32, below: &Path) -> bool {
    let Ok(directory) = fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
    if !directory.starts_with(below) {
        return false;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|b| *b == 0).any(|v| v.starts_with(NODE_MARK.as_bytes()))
}

/// What every process of a node has in its environment, and nothing else on the machine.
const NODE_MARK: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.64.";

fn is_emulator(pid: i32, dir: &Path) -> bool {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = raw.split(|b| *b == 0);
    raw.windows(EMULATOR_MODULE.len()).any(|w| w == EMULATOR_MODULE.as_bytes())
        && arguments.any(|a| a == dir.as_os_str().as_encoded_bytes())
}

/// A program of the real control plane that works below the lab's directory.
fn is_control_plane(pid: i32, dir: &Path) -> bool {
    let Ok(directory) = fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = raw.split(|b| *b == 0).next().unwrap_or_default();
    let name = Path::new(std::ffi::OsStr::from_bytes(program)).file_name();
    directory.starts_with(dir.join("kubernetes"))
        && CONTROL_PLANE.iter().any(|program| name == Some(program.as_ref()))
}

const CONTROL_PLANE: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

const EMULATOR_MODULE: &str = "rollcall_emulator";

/// Ends processes: SIGTERM, then SIGKILL for those still there after `grace`. Returns who survived
/// even that for two seconds.
pub async fn end(ids: &[ProcessId], grace: Duration) -> Vec<ProcessId> {
    for id in ids {
        id.signal(Signal::SIGTERM);
    }
    if all_gone(ids, grace).await {
        return Vec::new();
    }
    for id in ids {
        id.signal(Signal::SIGKILL);
    }
    all_gone(ids, Duration::from_secs(2)).await;
    ids.iter().copied().filter(|id| id.is_alive()).collect()
}

/// Waits until none of `ids` is alive; false when `limit` has passed first.
pub async fn all_gone(ids: &[ProcessId], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while ids.iter().any(|id| id.is_alive()) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The program that runs now, to be started again under another name.
#[must_use]
pub fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port_and_by_whom_it_works_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert_eq!(listening_on(port), [me]);
        assert!(me.works_for(&std::env::current_dir().unwrap()));
        assert!(!me.works_for(Path::new("/nonexistent/lab")));
        drop(listener);
        assert_eq!(listening_on(port), []);
    }

    #[test]
    fn stat_is_read_behind_a_name_with_blanks_and_parentheses() {
        let tail = "S 41 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 0 0";
        let stat = Stat::parse(&format!("42 (a ) (b c) {tail}")).unwrap();
        assert_eq!(stat, Stat { parent: 41, state: 'S', started: 98765 });
        assert_eq!(Stat::parse("42 (cut"), None);
        assert_eq!(Stat::parse("42 (a) S 41"), None);
    }

    #[tokio::test]
    async fn a_family_is_found_and_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & trap '' TERM; wait; wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let own = i32::try_from(child.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while descendants(own).is_empty() {
            assert!(Instant::now() < deadline, "the shell's child never appeared");
            tokio::task::yield_now().await;
        }
        let mut family = descendants(own);
        assert_eq!(family.len(), 1);
        assert!(family[0].command_line().starts_with("sleep"));
        assert_eq!(children(own), family);
        family.push(ProcessId::of(own).unwrap());
        assert!(descendants(std::process::id().cast_signed()).contains(&family[0]));

        // The shell ignores SIGTERM: only SIGKILL ends it.
        assert_eq!(end(&family, Duration::from_millis(200)).await, []);
        child.wait().unwrap();
        assert!(!family[1].is_alive());
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }
}
