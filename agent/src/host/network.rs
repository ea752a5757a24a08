//! Whether the kernel has a network to offer: interfaces that are up, and routes.

use super::{Root, files};

const INTERFACES: &str = "/sys/class/net";
const ROUTES: &str = "/proc/net/route";
const ROUTES_V6: &str = "/proc/net/ipv6_route";

/// What the kernel shows of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Interfaces of hardware, each with its state: `up`, `down`, `lowerlayerdown`.
    pub interfaces: Vec<(String, String)>,
    /// Whether there is a route over one of them.
    pub has_route: bool,
}

impl Network {
    /// Why nothing can be reached; `None` when something may be.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.has_route {
            return None;
        }
        let states = self.interfaces.iter().map(|(name, state)| format!("{name} is {state}"));
        Some(match self.interfaces.len() {
            0 => "there is no network interface".to_owned(),
            _ => format!("no interface has a route: {}", states.collect::<Vec<_>>().join(", ")),
        })
    }
}

/// Looks; `None` when it cannot be seen.
#[must_use]
pub fn read(root: &Root) -> Option<Network> {
    let directory = root.path(INTERFACES);
    if !directory.is_dir() {
        return None;
    }
    let routes = files::read_text(&root.path(ROUTES)).ok()?;
    let routes_v6 = files::read_text(&root.path(ROUTES_V6)).unwrap_or_default();
    let interfaces: Vec<(String, String)> = files::names_in(&directory)
        .into_iter()
        .filter(|name| name != "lo" && directory.join(name).join("device").exists())
        .map(|name| {
            let state = files::read_text(&directory.join(&name).join("operstate"));
            (name, state.map(|state| state.trim().to_owned()).unwrap_or_default())
        })
        .collect();
    // The interface is the first column of IPv4's table and the last of IPv6's; a link-local
    // route leads nowhere but next door.
    let v4 = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let v6 = routes_v6.lines().filter(|line| !line.starts_with("fe80") && !line.starts_with("ff"));
    let v6 = v6.filter_map(|line| line.split_whitespace().last());
    let has_route = v4.chain(v6).any(|name| name != "lo");
    Some(Network { interfaces, has_route })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\n";

    fn problem(interface: Option<&str>, routes: &str, routes_v6: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(read(&root), None, "nothing can be seen");
        fs::create_dir_all(root.path(INTERFACES).join("lo")).unwrap();
        fs::create_dir_all(root.path("/proc/net")).unwrap();
        if let Some(state) = interface {
            fs::create_dir_all(root.path(INTERFACES).join("ens5/device")).unwrap();
            fs::write(root.path(INTERFACES).join("ens5/operstate"), state).unwrap();
        }
        fs::write(root.path(ROUTES), format!("{HEAD}{routes}")).unwrap();
        fs::write(root.path(ROUTES_V6), routes_v6).unwrap();
        read(&root).unwrap().problem()
    }

    #[test]
    fn a_route_over_an_interface_is_a_network() {
        assert_eq!(problem(Some("up\n"), "ens5\t00000000\t0100000A\n", ""), None);
        let v6 = "fd000000000000000000000000000000 40 0 0 0 0 0 0 0 ens5\n";
        assert_eq!(problem(Some("up\n"), "", v6), None);
        let next_door = "fe800000000000000000000000000000 40 0 0 0 0 0 0 0 ens5\n";
        let none = problem(Some("down\n"), "", next_door).unwrap();
        assert_eq!(none, "no interface has a route: ens5 is down");
        assert_eq!(problem(None, "", "").unwrap(), "there is no network interface");
    }
}
