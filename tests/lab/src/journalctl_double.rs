//! `journalctl` of a process node: a double that prints what [`crate::systemctl_double`] and the
//! instance runner have logged for a unit.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::systemctl_double::state::Store;
use crate::systemctl_double::units::full_name;

#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    units: Vec<String>,
    lines: Option<usize>,
    json: bool,
    kernel: bool,
}

fn parse(arguments: &[String]) -> Result<Call, String> {
    let mut call = Call::default();
    let mut rest = arguments.iter().flat_map(|a| match a.split_once('=') {
        Some((option, value)) if option.starts_with("--") => vec![option, value],
        _ => vec![a.as_str()],
    });
    while let Some(argument) = rest.next() {
        match argument {
            "-u" | "--unit" => {
                call.units.push(full_name(rest.next().ok_or("option requires an argument")?));
            }
            "-n" | "--lines" => {
                let count = rest.next().ok_or("option requires an argument")?;
                let count = count.parse().map_err(|_| format!("Failed to parse lines '{count}'"));
                call.lines = Some(count?);
            }
            "-o" | "--output" => match rest.next() {
                Some("cat" | "short") => {}
                Some("json") => call.json = true,
                other => return Err(format!("Unknown output '{}'.", other.unwrap_or_default())),
            },
            "-k" | "--dmesg" => call.kernel = true,
            "-b" | "--boot" | "--no-pager" | "-q" | "--quiet" | "-a" | "--all" => {}
            option => return Err(format!("journalctl-double: `{option}` is not known here")),
        }
    }
    Ok(call)
}

fn run(root: &Path, arguments: &[String]) -> Result<String, String> {
    let call = parse(arguments)?;
    let store = Store::of(root);
    let mut entries: Vec<(String, String)> = Vec::new();
    if call.kernel {
        let records = lines_of("kernel", &root.join("dev/kmsg"));
        entries.extend(records.into_iter().map(|(unit, record)| (unit, text_of(&record))));
    }
    for unit in &call.units {
        entries.extend(lines_of(unit, &store.log(unit)));
    }
    let skip = call.lines.map_or(0, |count| entries.len().saturating_sub(count));
    let shown = entries.iter().skip(skip);
    Ok(if call.json {
        shown.map(|(unit, line)| format!("{}\n", entry(unit, line))).collect()
    } else {
        shown.map(|(_, line)| format!("{line}\n")).collect()
    })
}

/// What a record of the kernel's log says, without its head.
fn text_of(record: &str) -> String {
    record.split_once(';').map_or(record, |(_, text)| text).to_owned()
}

fn lines_of(unit: &str, path: &Path) -> Vec<(String, String)> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(|line| (unit.to_owned(), line.to_owned())).collect()
}

fn entry(unit: &str, line: &str) -> serde_json::Value {
    let identifier = unit.trim_end_matches(".service");
    json!({ "MESSAGE": line, "_SYSTEMD_UNIT": unit, "SYSLOG_IDENTIFIER": identifier })
}

/// Answers one call of `ROOT/usr/bin/journalctl`.
#[must_use]
pub fn main(root: &Path, arguments: &[String]) -> ExitCode {
    match run(root, arguments) {
        Ok(text) => {
            crate::output::data(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            crate::output::progress(&message);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(root: &Path, arguments: &str) -> Result<String, String> {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        run(root, &arguments)
    }

    #[test]
    fn prints_the_last_lines_of_a_unit() {
        let root = tempfile::tempdir().unwrap();
        let log = Store::of(root.path()).log("kubelet.service");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(call(root.path(), "-u kubelet -b -n 2 -o cat").unwrap(), "two\nthree\n");
        assert_eq!(call(root.path(), "--unit=kubelet.service").unwrap(), "one\ntwo\nthree\n");
        let json = call(root.path(), "-u kubelet --lines=1 -o json --no-pager").unwrap();
        let entry: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(entry["MESSAGE"], "three");
        assert_eq!(entry["_SYSTEMD_UNIT"], "kubelet.service");
        assert_eq!(call(root.path(), "-u nothing").unwrap(), "");
        fs::create_dir_all(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/kmsg"), "4,0,17,-;NVRM: Xid (PCI:0000:53:00): 79; gone\n")
            .unwrap();
        assert_eq!(call(root.path(), "-k -b").unwrap(), "NVRM: Xid (PCI:0000:53:00): 79; gone\n");
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        let root = Path::new("/nonexistent");
        for arguments in ["--since=yesterday", "-n many", "-o verbose", "-u"] {
            assert!(call(root, arguments).is_err(), "{arguments}");
        }
    }
}
