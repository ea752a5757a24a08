//! The kernel's log of a simulated node: records as `/dev/kmsg` gives them, in a file that grows.
//!
//! Unlike the real one, the file does not end in waiting: a reader at its end reads nothing, as the
//! real one answers a reader that does not want to wait.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};

use crate::state::{Gpu, State};

/// Where the log lies below a node's root.
pub const PATH: &str = "/dev/kmsg";

/// How much a record matters, in the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// `KERN_ERR`.
    Error = 3,
    /// `KERN_WARNING`.
    Warning = 4,
    /// `KERN_INFO`.
    Info = 6,
}

/// Appends one record of the kernel's own.
///
/// # Errors
///
/// The log cannot be read or written.
pub fn append(root: &Path, priority: Priority, text: &str) -> io::Result<()> {
    append_all(root, priority, &[text])
}

/// The same for several at one moment.
///
/// # Errors
///
/// As [`append`].
pub fn append_all(root: &Path, priority: Priority, texts: &[impl AsRef<str>]) -> io::Result<()> {
    let path = path(root);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    // Two writers must not give one number twice.
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let first = next_number(&file)?;
    let records: String = (first..)
        .zip(texts)
        .map(|(number, text)| record(priority, number, text.as_ref()).to_string())
        .collect();
    file.write_all(records.as_bytes())
}

/// What a driver says that comes up with these GPUs.
///
/// # Errors
///
/// As [`append`].
pub fn boot(root: &Path, state: &State) -> io::Result<()> {
    let mut lines = vec![
        format!("Linux version 6.12.53-69.119.amzn2023.{}", state.machine.name()),
        "Command line: BOOT_IMAGE=(hd0,gpt1)/boot/vmlinuz console=tty0 console=ttyS0,115200n8"
            .to_owned(),
    ];
    if state.module_loaded {
        let version = state.module_version();
        lines.push("nvidia: loading out-of-tree module taints kernel.".to_owned());
        lines.push(
            "nvidia-nvlink: Nvlink Core is being initialized, major device number 241".to_owned(),
        );
        lines.extend(
            state
                .gpus
                .iter()
                .map(|gpu| format!("nvidia {}: enabling device (0140 -> 0142)", gpu.pci)),
        );
        lines.push(format!(
            "NVRM: loading NVIDIA UNIX Open Kernel Module for {}  {version}  Release Build  (root@builder)",
            state.machine.name()
        ));
        lines.push("nvidia_uvm: module uses symbols nvUvmInterfaceDisableAccessCntr from proprietary module nvidia, inheriting taint.".to_owned());
        lines.push("nvidia-uvm: Loaded the UVM driver, major device number 239.".to_owned());
    }
    append_all(root, Priority::Info, &lines)
}

/// The line of an XID; `detail` is what follows the code.
#[must_use]
pub fn xid(gpu: &Gpu, code: u32, detail: &str) -> String {
    format!("NVRM: Xid (PCI:{}): {code}, {detail}", without_function(&gpu.pci))
}

/// The line of an `NVSwitch`'s error.
#[must_use]
pub fn sxid(address: &str, code: u32, fatal: bool, detail: &str) -> String {
    let severity = if fatal { "Fatal" } else { "Non-fatal" };
    format!("nvidia-nvswitch0: SXid (PCI:{address}): {code}, {severity}, {detail}")
}

/// What the driver says of a GPU that has fallen off the bus.
#[must_use]
pub fn off_bus(gpu: &Gpu) -> Vec<String> {
    let short = without_function(&gpu.pci);
    vec![
        format!(
            "NVRM: Xid (PCI:{short}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        ),
        format!("NVRM: GPU {}: GPU has fallen off the bus.", gpu.pci),
        format!("NVRM: GPU {}: GPU serial number is {}.", gpu.pci, gpu.serial),
    ]
}

/// `0000:53:00` of `0000:53:00.0`: the driver leaves the function out.
fn without_function(address: &str) -> &str {
    address.split_once('.').map_or(address, |(short, _)| short)
}

fn path(root: &Path) -> PathBuf {
    root.join(PATH.trim_start_matches('/'))
}

struct Record<'a> {
    priority: Priority,
    number: u64,
    microseconds: i64,
    text: &'a str,
}

fn record(priority: Priority, number: u64, text: &str) -> Record<'_> {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME);
    let microseconds =
        since_boot.map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000);
    Record { priority, number, microseconds, text }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, number, microseconds, text } = self;
        // As the kernel does it: one record is one line, other bytes are escaped.
        let text = text.replace('\\', "\\x5c").replace('\n', "\\x0a");
        writeln!(f, "{},{number},{microseconds},-;{text}", *priority as u8)
    }
}

/// The number after the last record's.
fn next_number(file: &File) -> io::Result<u64> {
    let mut last = None;
    for line in BufReader::new(file.try_clone()?).split(b'\n') {
        let line = line?;
        let head = String::from_utf8_lossy(&line);
        if let Some(number) = head.split(',').nth(1).and_then(|number| number.parse::<u64>().ok()) {
            last = Some(number);
        }
    }
    Ok(last.map_or(0, |number| number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::for_instance_type;

    #[test]
    fn records_are_the_kernels_and_are_numbered() {
        let node = tempfile::tempdir().unwrap();
        let state = for_instance_type("p5.48xlarge").unwrap();
        boot(node.path(), &state).unwrap();
        let line = xid(&state.gpus[0], 48, "pid=1, name=x, double bit error");
        append(node.path(), Priority::Error, &line).unwrap();
        append(node.path(), Priority::Warning, "two\nlines\\").unwrap();
        let log = std::fs::read_to_string(path(node.path())).unwrap();
        let records: Vec<(Vec<&str>, &str)> = log
            .lines()
            .map(|line| line.split_once(';').unwrap())
            .map(|(head, text)| (head.split(',').collect(), text))
            .collect();
        for (number, (head, _)) in records.iter().enumerate() {
            assert_eq!((head.len(), head[1], head[3]), (4, number.to_string().as_str(), "-"));
            assert!(head[2].parse::<u64>().unwrap() > 0);
        }
        let [.., (head, text), (_, escaped)] = records.as_slice() else { panic!("{log}") };
        assert_eq!(head[0], "3");
        assert_eq!(*text, "NVRM: Xid (PCI:0000:53:00): 48, pid=1, name=x, double bit error");
        assert_eq!(*escaped, "two\\x0alines\\x5c");
    }
}
