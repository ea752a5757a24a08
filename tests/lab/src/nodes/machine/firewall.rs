//! What a machine's packets meet on their way out: rules in its own namespace, for what a proxy
//! cannot do. A packet that vanishes is answered by nobody.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::{MachineError, network};
use crate::kubernetes::real::Parts;

/// What becomes of packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// They vanish.
    Drop(Ipv4Addr),
    /// A connection is refused, and one that is open is reset.
    Reject(Ipv4Addr),
}

/// The whole table, replaced at once. Packets of the machine itself leave through `output`, those
/// of its pods through `forward`. Pure.
fn table(rules: &[Rule]) -> String {
    let lines: String = rules
        .iter()
        .map(|rule| match rule {
            Rule::Drop(to) => format!("    ip daddr {to} counter drop\n"),
            Rule::Reject(to) => {
                format!("    ip daddr {to} meta l4proto tcp counter reject with tcp reset\n")
            }
        })
        .collect();
    let chain = |name: &str, hook: &str| {
        format!(
            "  chain {name} {{\n    type filter hook {hook} priority -10; policy accept;\n{lines}  }}\n"
        )
    };
    // The first line makes the second possible where there is no table yet.
    format!(
        "table inet rollcall_lab\ndelete table inet rollcall_lab\ntable inet rollcall_lab {{\n{}{}}}\n",
        chain("leaving", "output"),
        chain("passing", "forward")
    )
}

/// Sets a machine's rules; none lifts them.
///
/// # Errors
/// When `nft` is missing or refuses.
pub(super) fn set(parts: &Parts, name: &str, rules: &[Rule]) -> Result<(), MachineError> {
    let nft = parts.path("nftables")?;
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", network::namespace(name)))
        .arg(nft)
        .args(["-f", "-"])
        .envs(libraries(nft).map(|path| ("LD_LIBRARY_PATH", path)));
    network::feed(&mut command, &table(rules))
}

/// Where the libraries of a program are that was unpacked and not installed.
fn libraries(program: &Path) -> Option<std::path::PathBuf> {
    let root = program.ancestors().nth(3).filter(|root| *root != Path::new("/"))?;
    Some(root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_as_a_whole_and_reaches_pods_as_well() {
        let (ec2, imds) = (Ipv4Addr::new(100, 64, 0, 11), Ipv4Addr::new(169, 254, 169, 254));
        let chain = |hook: &str| {
            format!(
                "    type filter hook {hook} priority -10; policy accept;\n    \
                 ip daddr 100.64.0.11 counter drop\n    \
                 ip daddr 169.254.169.254 meta l4proto tcp counter reject with tcp reset\n  }}\n"
            )
        };
        assert_eq!(
            table(&[Rule::Drop(ec2), Rule::Reject(imds)]),
            format!(
                "table inet rollcall_lab\ndelete table inet rollcall_lab\ntable inet rollcall_lab {{\n  \
                 chain leaving {{\n{}  chain passing {{\n{}}}\n",
                chain("output"),
                chain("forward")
            )
        );
        assert!(!table(&[]).contains("daddr"));
    }

    #[test]
    fn an_unpacked_program_brings_its_libraries() {
        let unpacked = libraries(Path::new("/cache/debian/root/usr/sbin/nft")).unwrap();
        assert!(unpacked.starts_with("/cache/debian/root/usr/lib"), "{unpacked:?}");
        assert_eq!(libraries(Path::new("/usr/sbin/nft")), None);
    }
}
