//! Kernel lines that are no XID and speak of the GPUs all the same: errors of the PCIe links, programs that
//! crash within NCCL.

use super::pci;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// A PCIe function reports an error.
    Pcie {
        /// Its address.
        pci: String,
        /// How bad: 0 corrected, 1 not corrected, 2 the link is lost.
        severity: usize,
    },
    /// A program has crashed within NCCL.
    NcclCrash {
        /// Its number on the host.
        pid: u32,
        /// Its name.
        name: String,
        /// The library, `libnccl.so.2.28.3`.
        library: String,
    },
}

/// Reads a line; none when it speaks of something else.
#[must_use]
pub fn read(line: &str) -> Option<LogLine> {
    pcie(line).or_else(|| nccl(line))
}

/// `nvidia 0000:53:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)`;
/// an uncorrected one says `(Non-Fatal)` or `(Fatal)`. Newer kernels write `Correctable`.
fn pcie(line: &str) -> Option<LogLine> {
    let (before, rest) = line.split_once(": PCIe Bus Error: severity=")?;
    let address = before.split_whitespace().next_back()?;
    let severity = rest.split(',').next()?;
    let severity = match severity {
        "Corrected" | "Correctable" => 0,
        word if word.contains("Non-Fatal") => 1,
        word if word.contains("Fatal") => 2,
        _ => return None,
    };
    (address.split(':').count() >= 2)
        .then(|| LogLine::Pcie { pci: pci::normalize(address), severity })
}

/// `python3[4242]: segfault at 0 ip 00007f… sp 00007f… error 4 in libnccl.so.2.28.3[7f…+1000]`
fn nccl(line: &str) -> Option<LogLine> {
    let (who, rest) = line.split_once("]: segfault at ")?;
    let (name, pid) = who.rsplit_once('[')?;
    let library = rest.rsplit_once(" in ")?.1.split('[').next()?.trim();
    // The kernel puts a time before it where it logs one.
    let name = name.rsplit_once("] ").map_or(name, |(_, name)| name);
    library.starts_with("libnccl").then(|| {
        Some(LogLine::NcclCrash {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            library: library.to_owned(),
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_kernels_write_them() {
        let pcie = |pci: &str, severity| Some(LogLine::Pcie { pci: pci.into(), severity });
        let nccl = |pid, library: &str| {
            Some(LogLine::NcclCrash { pid, name: "python3".into(), library: library.into() })
        };
        for (line, wanted) in [
            (
                "nvidia 0000:53:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)",
                pcie("0000:53:00.0", 0),
            ),
            (
                "pcieport 0000:50:01.0: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)",
                pcie("0000:50:01.0", 0),
            ),
            (
                "nvidia 0000:CA:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer",
                pcie("0000:ca:00.0", 1),
            ),
            (
                "nvidia 0000:53:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer",
                pcie("0000:53:00.0", 2),
            ),
            (
                "python3[4242]: segfault at 0 ip 00007f1 sp 00007f2 error 4 in libnccl.so.2.28.3[7f11+1000]",
                nccl(4242, "libnccl.so.2.28.3"),
            ),
            (
                "[  12.5] python3[7]: segfault at 8 ip 00007f1 sp 00007f2 error 4 in libnccl.so.2",
                nccl(7, "libnccl.so.2"),
            ),
            ("python3[7]: segfault at 8 ip 1 sp 2 error 4 in libc.so.6[7f+1]", None),
            ("python3[seven]: segfault at 8 ip 1 sp 2 error 4 in libnccl.so.2[7f+1]", None),
            ("nvidia 0000:53:00.0: PCIe Bus Error: severity=Odd, type=x", None),
            ("x: PCIe Bus Error: severity=Corrected", None),
            ("NVRM: Xid (PCI:0000:53:00): 79, GPU has fallen off the bus.", None),
            ("", None),
        ] {
            assert_eq!(read(line), wanted, "{line}");
        }
    }
}
