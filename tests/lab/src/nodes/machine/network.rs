//! The machines' network: a bridge of the lab's own, and per machine a network namespace with its
//! private address and a place for IMDS.
//!
//! The bridge's addresses are AWS as the machines see it: the API server's endpoint, and one for
//! each AWS service.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use tokio::net::TcpListener;

use super::MachineError;
use crate::faults::network::Path;

/// The bridge. One lab with machines at a time: its name is the lock.
pub(super) const BRIDGE: &str = "rollcall-lab";
/// The cluster's endpoint.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// AWS services and where they are, each apart so that one path can fail alone.
pub(super) const SERVICES: [(&str, Path, Ipv4Addr); 5] = [
    ("EC2", Path::Ec2, Ipv4Addr::new(100, 64, 0, 11)),
    ("SSM", Path::Ssm, Ipv4Addr::new(100, 64, 0, 12)),
    ("EKS", Path::Eks, Ipv4Addr::new(100, 64, 0, 13)),
    ("S3", Path::S3, Ipv4Addr::new(100, 64, 0, 14)),
    ("ECR", Path::Ecr, Ipv4Addr::new(100, 64, 0, 15)),
];
/// The port of each of them.
pub(super) const SERVICE_PORT: u16 = 80;
/// STS, by its own name in `/etc/hosts` and on its own port: kubelet's credential plugin signs for
/// the host that an endpoint variable names, so there is none.
pub(super) const STS: (&str, Ipv4Addr, u16) =
    ("sts.us-east-1.amazonaws.com", Ipv4Addr::new(100, 64, 0, 10), 443);
/// Where every machine finds its metadata.
pub(super) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Where a path of a machine ends.
pub(super) fn address(path: Path) -> Ipv4Addr {
    match path {
        Path::Api => ENDPOINT,
        Path::Imds => IMDS,
        Path::Sts => STS.1,
        Path::Ec2 => SERVICES[0].2,
        Path::Ssm => SERVICES[1].2,
        Path::Eks => SERVICES[2].2,
        Path::S3 => SERVICES[3].2,
        Path::Ecr => SERVICES[4].2,
    }
}

/// Makes the bridge with all of its addresses.
pub(super) fn create() -> Result<(), MachineError> {
    let mut batch = format!("link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n");
    batch.push_str(&format!("address add {ENDPOINT}/24 dev {BRIDGE}\n"));
    for address in SERVICES.iter().map(|(_, _, address)| *address).chain([STS.1]) {
        batch.push_str(&format!("address add {address}/32 dev {BRIDGE}\n"));
    }
    ip(&[], &batch)
}

/// Whether there is one, of this lab or of another.
pub(super) fn exists() -> bool {
    std::path::Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// Removes the bridge.
pub(super) fn remove() -> Result<(), MachineError> {
    ip(&[], &format!("link del {BRIDGE}\n"))
}

/// The namespace of a machine.
pub(super) fn namespace(name: &str) -> String {
    format!("rollcall-{name}")
}

/// Makes a machine's namespace, its interface, and the way to it.
pub(super) fn connect(name: &str, address: &str, mac: &str) -> Result<(), MachineError> {
    let namespace = namespace(name);
    let outside = outside(name);
    ip(
        &[],
        &format!(
            "netns add {namespace}\n\
             link add {outside} type veth peer name eth0 netns {namespace}\n\
             link set {outside} master {BRIDGE} up\n\
             route replace {address}/32 dev {BRIDGE}\n"
        ),
    )?;
    ip(
        &["-n", &namespace],
        &format!(
            "link set eth0 address {mac}\n\
             link set lo up\n\
             link set eth0 up\n\
             address add {IMDS}/32 dev lo\n\
             address add {address}/32 dev eth0\n\
             route add default dev eth0\n"
        ),
    )
}

/// Removes a machine's namespace and its interface; routes go with it.
pub(super) fn disconnect(name: &str) -> Result<(), MachineError> {
    // By name: the kernel removes what is in a namespace some time after the namespace.
    let outside = outside(name);
    if std::path::Path::new("/sys/class/net").join(&outside).exists() {
        ip(&[], &format!("link del {outside}\n"))?;
    }
    ip(&[], &format!("netns del {}\n", namespace(name)))
}

/// The end of a machine's interface that is on the bridge; a name has at most 15 bytes.
fn outside(name: &str) -> String {
    format!("rc-{name}")
}

/// Whether a machine has a namespace.
pub(super) fn is_connected(name: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace(name)).exists()
}

/// The names of machines that have a namespace.
pub(super) fn connected() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("rollcall-").map(str::to_owned)
        })
        .collect()
}

/// A listener for IMDS inside a machine's namespace: a socket stays in the namespace that it was
/// made in.
pub(super) fn imds_listener(name: &str) -> Result<TcpListener, MachineError> {
    let path = format!("/run/netns/{}", namespace(name));
    let failed = |source| MachineError::Imds { path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(failed)?;
    // A thread of its own, which ends in the foreign namespace and is never used again.
    let made = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        std::net::TcpListener::bind(SocketAddr::from((IMDS, 80)))
    });
    let listener = made.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
    let listener = listener.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(listener).map_err(failed)
}

fn ip(arguments: &[&str], batch: &str) -> Result<(), MachineError> {
    feed(Command::new("ip").args(arguments).args(["-batch", "-"]), batch)
}

/// Runs a command that reads what to do from its standard input.
pub(super) fn feed(command: &mut Command, batch: &str) -> Result<(), MachineError> {
    let failed = |why: String| MachineError::Network { batch: batch.to_owned(), why };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_an_address_of_its_own() {
        let mut addresses: Vec<Ipv4Addr> = Path::ALL.map(|(_, path)| address(path)).to_vec();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), Path::ALL.len());
        for (_, path, to) in SERVICES {
            assert_eq!(address(path), to, "{path:?}");
        }
    }
}
