//! Kernel lines of the driver: XIDs, GPUs that fell off the bus, and errors of NVSwitches.

use serde::{Deserialize, Serialize};

use super::OFF_THE_BUS;
use crate::gpu::pci;

/// An error that the driver told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// PCI address of the GPU or switch, `0000:53:00.0`.
    pub pci: String,
    /// The XID; an SXid for a switch.
    pub code: u32,
    /// Whether a switch said it, and not a GPU.
    pub switch: bool,
    /// The process that it is charged to.
    pub pid: Option<u32>,
    /// That process's name.
    pub name: Option<String>,
    /// How bad the line itself calls it.
    pub severity: Option<Severity>,
    /// The recovery action that the driver asks for from now on: XID 154.
    pub action: Option<u32>,
    /// The rest of the line.
    pub detail: String,
}

/// How bad a line of an NVLink or a switch calls its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The link or switch needs a reset.
    Fatal,
    /// It goes on.
    Nonfatal,
}

/// How many lines after `The NVIDIA GPU …` may say that it has fallen off the bus.
const SPREAD: u8 = 4;

/// Reads lines in their order: one message of the driver spreads over several.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// The GPU that a message has begun about, and for how many lines more.
    about: Option<(String, u8)>,
}

impl Parser {
    /// The errors in one kernel message, which may hold several lines.
    pub fn take(&mut self, message: &str) -> Vec<Record> {
        // /dev/kmsg writes a newline within a message as `\x0a`.
        let text = message.replace("\\x0a", "\n");
        text.lines().filter_map(|line| self.line(line.trim())).collect()
    }

    fn line(&mut self, line: &str) -> Option<Record> {
        let about = self.about.take();
        if let Some(record) = switch(line).or_else(|| gpu(line)).or_else(|| lost(line)) {
            return Some(record);
        }
        let text = line.split_once("NVRM:")?.1.trim();
        if let Some(rest) = text.strip_prefix("The NVIDIA GPU ") {
            let address = rest.split_whitespace().next().filter(|word| is_address(word))?;
            self.about = Some((pci::normalize(address), SPREAD));
            return None;
        }
        let (address, left) = about?;
        if text.contains("fallen off the bus") {
            return Some(off_the_bus(address, text));
        }
        self.about = (left > 1).then(|| (address, left - 1));
        None
    }
}

/// `NVRM: Xid (PCI:0000:53:00): 31, pid=1234, name=python3, Ch 00000008, …`
fn gpu(line: &str) -> Option<Record> {
    let rest = line.split_once("NVRM: Xid (")?.1;
    let (address, rest) = rest.split_once(')')?;
    let pci = address_of(address)?;
    // Some drivers put a UUID between the address and the code.
    let (code, detail) = rest.split_once(": ").and_then(|(_, rest)| number(rest))?;
    let mut record = Record { pci, code, detail: detail.to_owned(), ..Record::default() };
    let mut rest = detail;
    while let Some((word, after)) = rest.split_once(',') {
        let Some((key, value)) = word.trim().split_once('=') else { break };
        let value = value.trim_matches('\'');
        match key {
            "pid" => record.pid = value.parse().ok(),
            "name" if value != "<unknown>" => record.name = Some(value.to_owned()),
            "name" => {}
            _ => break,
        }
        rest = after;
    }
    rest.trim().clone_into(&mut record.detail);
    record.severity = nvlink_severity(rest);
    record.action = (code == super::RECOVERY_ACTION_CHANGED).then(|| action(rest)).flatten();
    Some(record)
}

/// `145, RLW_REMAP Nonfatal XC0 i0 Link 72 (0x00000004 …)`
fn nvlink_severity(detail: &str) -> Option<Severity> {
    let mut words = detail.split_whitespace();
    let severity = words.by_ref().find_map(|word| match word {
        "Fatal" => Some(Severity::Fatal),
        "Nonfatal" | "Non-fatal" => Some(Severity::Nonfatal),
        _ => None,
    })?;
    words.next().is_some_and(|word| word.starts_with("XC")).then_some(severity)
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`
fn action(detail: &str) -> Option<u32> {
    let to = detail.split_once(" to 0x")?.1;
    let digits: String = to.chars().take_while(char::is_ascii_hexdigit).collect();
    u32::from_str_radix(&digits, 16).ok()
}

/// `NVRM: GPU 0000:53:00.0: GPU has fallen off the bus.`
fn lost(line: &str) -> Option<Record> {
    let text = line.split_once("NVRM:")?.1.trim();
    let (address, rest) = text.strip_prefix("GPU ")?.split_once(": ")?;
    let address = address.strip_prefix("at ").unwrap_or(address);
    rest.contains("fallen off the bus").then(|| Some(off_the_bus(address_of(address)?, rest)))?
}

fn off_the_bus(pci: String, detail: &str) -> Record {
    Record { pci, code: OFF_THE_BUS, detail: detail.to_owned(), ..Record::default() }
}

/// `nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 …`
fn switch(line: &str) -> Option<Record> {
    let rest = line.split_once("nvidia-nvswitch")?.1.split_once(": SXid (")?.1;
    let (address, rest) = rest.split_once(')')?;
    let (code, detail) = rest.split_once(": ").and_then(|(_, rest)| number(rest))?;
    let severity = match detail.split(',').next()?.trim() {
        "Fatal" => Some(Severity::Fatal),
        "Non-fatal" | "Nonfatal" => Some(Severity::Nonfatal),
        _ => None,
    };
    let pci = address_of(address)?;
    Some(Record {
        pci,
        code,
        switch: true,
        severity,
        detail: detail.to_owned(),
        ..Record::default()
    })
}

/// A number and what comes after it and its comma.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest.trim_start_matches(',').trim()))
}

/// `PCI:0000:53:00` as `0000:53:00.0`.
fn address_of(text: &str) -> Option<String> {
    let text = text.trim_start_matches("PCI:");
    is_address(text).then(|| {
        let whole = if text.contains('.') { text.to_owned() } else { format!("{text}.0") };
        pci::normalize(&whole)
    })
}

/// `53:00`, `0000:53:00` or `00000000:53:00.0`.
fn is_address(text: &str) -> bool {
    let text = text.split_once('.').map_or(text, |(address, _)| address);
    let parts: Vec<&str> = text.split(':').collect();
    (2..=3).contains(&parts.len())
        && parts.iter().all(|part| {
            (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Record {
        let mut records = Parser::default().take(line);
        assert_eq!(records.len(), 1, "{line}");
        records.remove(0)
    }

    #[test]
    fn an_xid_has_its_gpu_code_process_and_words() {
        let seen = one(
            "NVRM: Xid (PCI:0000:53:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000. \
             MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2b_7e000000.",
        );
        assert_eq!((seen.pci.as_str(), seen.code, seen.pid), ("0000:53:00.0", 31, Some(4242)));
        assert_eq!(seen.name.as_deref(), Some("python3"));
        assert!(seen.detail.starts_with("Ch 00000008, intr"), "{}", seen.detail);
    }

    #[test]
    fn the_forms_that_drivers_write() {
        for (line, pci, code, pid) in [
            (
                "NVRM: Xid (PCI:0000:53:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                "0000:53:00.0",
                79,
                None,
            ),
            ("NVRM: Xid (0000:CA:00): 14, Channel 00000001", "0000:ca:00.0", 14, None),
            (
                "NVRM: Xid (PCI:00000000:9B:00.0): 48, pid=7, name=a b, An uncorrectable double bit error",
                "0000:9b:00.0",
                48,
                Some(7),
            ),
            (
                "[  12.5] NVRM: Xid (PCI:0001:01:00): 63, Row Remapper: New row marked for remapping",
                "0001:01:00.0",
                63,
                None,
            ),
            ("NVRM: Xid (PCI:0000:53:00): 119", "0000:53:00.0", 119, None),
            ("NVRM: GPU 0000:53:00.0: GPU has fallen off the bus.", "0000:53:00.0", 79, None),
            ("NVRM: GPU at PCI:0000:53:00: GPU has fallen off the bus.", "0000:53:00.0", 79, None),
        ] {
            let seen = one(line);
            assert_eq!((seen.pci.as_str(), seen.code, seen.pid), (pci, code, pid), "{line}");
        }
    }

    #[test]
    fn one_message_may_spread_over_lines_or_records() {
        let whole = "NVRM: The NVIDIA GPU 0000:9b:00.0\\x0aNVRM: (PCI ID: 10de:2330) installed in this \
            system has\\x0aNVRM: fallen off the bus and is not responding to commands.";
        assert_eq!((one(whole).pci.as_str(), one(whole).code), ("0000:9b:00.0", 79));
        let mut parser = Parser::default();
        let records: Vec<Record> =
            whole.split("\\x0a").flat_map(|line| parser.take(line)).collect();
        assert_eq!(records.len(), 1);

        // Far apart they are no message.
        let mut parser = Parser::default();
        parser.take("NVRM: The NVIDIA GPU 0000:9b:00.0");
        for _ in 0..SPREAD {
            assert_eq!(parser.take("NVRM: something else"), []);
        }
        assert_eq!(parser.take("NVRM: fallen off the bus and is not responding to commands."), []);
    }

    #[test]
    fn links_and_switches_say_how_bad_it_is() {
        let link = |text: &str| one(&format!("NVRM: Xid (PCI:0000:53:00): {text}")).severity;
        assert_eq!(
            link("145, RLW_REMAP Nonfatal XC0 i0 Link 72 (0x00000004 0x80000000)"),
            Some(Severity::Nonfatal)
        );
        assert_eq!(
            link("149, NETIR_LINK_EVT  Fatal   XC1 i2 Link 08 (0x004505c6)"),
            Some(Severity::Fatal)
        );
        assert_eq!(link("13, pid=1, name=x, Fatal error in my kernel"), None);

        let seen =
            one("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS");
        assert_eq!((seen.pci.as_str(), seen.code, seen.switch), ("0000:c1:00.0", 28006, true));
        assert_eq!(seen.severity, Some(Severity::Nonfatal));
        let seen =
            one("nvidia-nvswitch0: SXid (PCI:0000:c0:00.0): 20034, Fatal, Link 30 LTSSM Fault Up");
        assert_eq!(seen.severity, Some(Severity::Fatal));
    }

    #[test]
    fn the_driver_says_what_it_wants_now() {
        let seen = one(
            "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        );
        assert_eq!((seen.code, seen.action), (154, Some(1)));
    }

    #[test]
    fn other_lines_say_nothing() {
        for line in [
            "",
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05",
            "NVRM: Xid (PCI:): 79",
            "NVRM: Xid (PCI:0000:53:00): seventy-nine, x",
            "NVRM: Xid (PCI:0000:53:00) 79",
            "NVRM: GPU 0: has fallen off the bus",
            "usb 1-1: new device, NVRM: Xid",
            "nvidia-nvswitch: SXid (PCI:0000:c1:00.0)",
        ] {
            assert_eq!(Parser::default().take(line), [], "{line}");
        }
    }
}
