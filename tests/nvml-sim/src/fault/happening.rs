//! What happens once, and cannot be taken back: the kernel says it, event sets are told.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use super::UnknownFault;
use crate::kernel_log::{self, Priority};
use crate::state::{EventKind, State};

/// What an XID's line says after the code, unless one is given.
const DETAIL: &str = "pid='<unknown>', name=<unknown>, Ch 00000001";

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An XID.
    Xid {
        /// Its code.
        code: u32,
        /// The GPU, by its ordinal.
        gpu: u32,
        /// What the line says after the code.
        detail: Option<String>,
        /// Who hears of it.
        heard: Heard,
    },
    /// An error of an `NVSwitch`.
    Sxid {
        /// Its code.
        code: u32,
        /// Whether the switch says that it is fatal.
        fatal: bool,
    },
    /// A line of the kernel's log.
    Kernel(String),
}

/// Who hears of an XID: the driver tells NVML of most, the kernel's log of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Both.
    Everywhere,
    /// Readers of the kernel's log.
    InLog,
    /// Waiters on NVML's events.
    ByNvml,
}

impl Heard {
    const ALL: [(&str, Self); 3] = [
        ("xid", Self::Everywhere),
        ("xid-kmsg-only", Self::InLog),
        ("xid-nvml-only", Self::ByNvml),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }
}

impl Happening {
    /// Lets it happen on the node below `root`.
    ///
    /// # Errors
    ///
    /// The state or the log cannot be read or written, or there is no such GPU.
    pub fn happen(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Xid { code, gpu: index, detail, heard } => {
                let mut state = State::read(root)?;
                let Some(gpu) = state.gpu(*index) else {
                    return Err(io::Error::other(format!("there is no GPU {index}")));
                };
                let line = kernel_log::xid(gpu, *code, detail.as_deref().unwrap_or(DETAIL));
                if *heard != Heard::ByNvml {
                    kernel_log::append(root, Priority::Error, &line)?;
                }
                if *heard != Heard::InLog {
                    state.push_event(*index, EventKind::Xid, (*code).into());
                    state.write(root)?;
                }
                Ok(())
            }
            Self::Sxid { code, fatal } => {
                let state = State::read(root)?;
                let switch = state.nvswitches.first().map_or("0000:d1:00.0", String::as_str);
                let line = kernel_log::sxid(switch, *code, *fatal, "Link 28 (Data {0x00000000})");
                kernel_log::append(root, Priority::Error, &line)
            }
            Self::Kernel(line) => kernel_log::append(root, Priority::Warning, line),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xid { code, gpu, detail, heard } => {
                write!(f, "{}={code}:{gpu}", heard.name())?;
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ":{detail}"))
            }
            Self::Sxid { code, fatal } => {
                write!(f, "sxid={code}:{}", if *fatal { "fatal" } else { "nonfatal" })
            }
            Self::Kernel(line) => write!(f, "kmsg={line}"),
        }
    }
}

impl FromStr for Happening {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        parse(text).ok_or_else(|| UnknownFault(text.into()))
    }
}

fn parse(text: &str) -> Option<Happening> {
    let (name, value) = text.split_once('=')?;
    if name == "kmsg" {
        return Some(Happening::Kernel(value.to_owned()));
    }
    let mut parts = value.splitn(3, ':');
    let code = parts.next()?.parse().ok()?;
    if name == "sxid" {
        let fatal = match parts.next()? {
            "fatal" => true,
            "nonfatal" => false,
            _ => return None,
        };
        return Some(Happening::Sxid { code, fatal });
    }
    let (_, heard) = Heard::ALL.into_iter().find(|(known, _)| *known == name)?;
    let gpu = parts.next().map_or(Some(0), |gpu| gpu.parse().ok())?;
    Some(Happening::Xid { code, gpu, detail: parts.next().map(str::to_owned), heard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::for_instance_type;

    #[test]
    fn what_happens_is_in_the_log_and_told_as_an_event() {
        let node = tempfile::tempdir().unwrap();
        for_instance_type("p5.48xlarge").unwrap().write(node.path()).unwrap();
        for text in [
            "xid=31:2:pid=17, name=python3, Ch 00000008",
            "xid-kmsg-only=79:3",
            "xid-nvml-only=63:0",
            "sxid=20034:fatal",
            "kmsg=python3[17]: segfault at 0 ip 1 sp 2 error 4 in libnccl.so.2.28",
        ] {
            let happening: Happening = text.parse().unwrap();
            assert_eq!(happening.to_string(), text);
            happening.happen(node.path()).unwrap();
        }
        let log = std::fs::read_to_string(node.path().join("dev/kmsg")).unwrap();
        let texts: Vec<&str> = log.lines().filter_map(|l| Some(l.split_once(';')?.1)).collect();
        assert_eq!(
            texts[..2],
            [
                "NVRM: Xid (PCI:0000:75:00): 31, pid=17, name=python3, Ch 00000008",
                "NVRM: Xid (PCI:0000:86:00): 79, pid='<unknown>', name=<unknown>, Ch 00000001"
            ]
        );
        assert!(texts[2].contains("SXid (PCI:0000:") && texts[2].contains("): 20034, Fatal, "));
        assert_eq!(texts.len(), 4);
        let events = State::read(node.path()).unwrap().events;
        let told: Vec<_> =
            events.iter().map(|event| (event.number, event.gpu, event.data)).collect();
        assert_eq!(told, [(1, 2, 31), (2, 0, 63)]);
        assert_eq!("xid=48".parse::<Happening>().unwrap().to_string(), "xid=48:0");
        for bad in ["xid", "xid=x", "sxid=1", "sxid=1:maybe", "xid=1:x"] {
            assert!(bad.parse::<Happening>().is_err(), "{bad}");
        }
        assert!("xid=1:9".parse::<Happening>().unwrap().happen(node.path()).is_err());
    }
}
