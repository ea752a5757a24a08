//! What a failed join leaves for whoever looks into it later: boot journal, kernel log, unit states,
//! configuration, the report. At most 10 s and 1 MiB, scrubbed of secrets, on the node's disk and,
//! where the fleet names a bucket, in S3.
//!
//! One text in sections, compressed with gzip: `zless` reads it.

use std::io::Write as _;
use std::time::Duration;

use contract::names::{
    AGENT_CONFIG_PATH, JOIN_STATE_DIR, NODEADM_DROPIN_DIR, UNIT_JOIN, UNIT_KUBELET,
    UNIT_NODEADM_CONFIG, UNIT_NODEADM_RUN,
};
use contract::{ErrorChain, JoinReport};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::redact::Redactor;
use crate::host::exec;
use crate::host::files::{self, FileError};
use crate::host::{Deadline, Root};

/// How long the gathering may take.
const TIME: Duration = Duration::from_secs(8);
/// How long one program may take of it.
const PROGRAM: Duration = Duration::from_secs(3);
/// The largest bundle, compressed or not: what does not fit loses its beginning.
pub const SIZE_MAX: usize = 1024 * 1024;
/// What is left of it for gzip's own bytes where nothing can be compressed.
const OVERHEAD: usize = 4096;
/// The largest section.
const SECTION_MAX: usize = 240 * 1024;
/// How many bundles are kept on the disk.
const KEPT: usize = 5;

/// Files that say how the node was configured.
const FILES: [&str; 6] = [
    AGENT_CONFIG_PATH,
    "/run/eks/nodeadm/config.json",
    "/etc/kubernetes/kubelet/config.json",
    "/etc/eks/kubelet/environment",
    "/etc/containerd/config.toml",
    "/proc/mounts",
];
/// Units whose state is told, besides those that have failed.
const UNITS: [&str; 10] = [
    UNIT_JOIN,
    UNIT_NODEADM_CONFIG,
    UNIT_NODEADM_RUN,
    UNIT_KUBELET,
    "containerd.service",
    "cloud-final.service",
    "systemd-networkd.service",
    "nvidia-kmod-load.service",
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
];

/// One section, before it is trimmed.
type Section = (String, String);

/// Gathers a bundle: the most telling section first, because what does not fit is left out at the end.
pub async fn gather(root: &Root, report: &JoinReport, redactor: &Redactor) -> Vec<u8> {
    let deadline = Deadline::within(TIME);
    let mut sections =
        vec![("join report".to_owned(), serde_json::to_string_pretty(report).unwrap_or_default())];
    let journalctl =
        async |arguments: &[&str]| program(root, "journalctl", arguments, deadline).await;
    let states: Vec<&str> =
        ["show", "-p", "Id,LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts"]
            .into_iter()
            .chain(UNITS)
            .collect();
    let (units, failed, join, kernel, boot) = tokio::join!(
        program(root, "systemctl", &states, deadline),
        program(root, "systemctl", &["list-units", "--failed", "--no-legend"], deadline),
        journalctl(&["-b", "-u", UNIT_JOIN, "-n", "400", "-o", "cat", "--no-pager"]),
        journalctl(&["-b", "-k", "-n", "1500", "-o", "short-monotonic", "--no-pager"]),
        journalctl(&["-b", "-n", "1500", "-o", "short-monotonic", "--no-pager"]),
    );
    sections.extend([units, failed, join, kernel]);
    let dropins = files::names_in(&root.path(NODEADM_DROPIN_DIR));
    let dropins = dropins.iter().map(|name| format!("{NODEADM_DROPIN_DIR}/{name}"));
    for path in FILES.into_iter().map(str::to_owned).chain(dropins) {
        let text = files::read_text(&root.path(&path));
        let text = text.unwrap_or_else(|error| ErrorChain(&error).to_string());
        sections.push((path, text));
    }
    sections.push(boot);
    pack(&sections, redactor)
}

async fn program(root: &Root, name: &str, arguments: &[&str], deadline: Deadline) -> Section {
    let title = format!("{name} {}", arguments.join(" "));
    let path = root.path("/usr/bin").join(name);
    let text = match exec::run(&path, arguments, deadline.at_most(PROGRAM)).await {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => ErrorChain(&error).to_string(),
    };
    (title, text)
}

/// The sections as one compressed text of at most [`SIZE_MAX`] bytes, scrubbed. Pure.
#[must_use]
pub fn pack(sections: &[Section], redactor: &Redactor) -> Vec<u8> {
    let mut room = SIZE_MAX - OVERHEAD;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for (title, text) in sections {
        let heading = format!("==> {title} <==\n");
        let Some(left) = room.checked_sub(heading.len() + 1) else { break };
        let text = redactor.scrub(text);
        // The end of a log says more than its beginning.
        let cut = text.len().saturating_sub(left.min(SECTION_MAX));
        let body = &text[text.ceil_char_boundary(cut)..];
        room = left - body.len();
        for part in [heading.as_str(), body, "\n"] {
            // A vector takes everything.
            let _ = encoder.write_all(part.as_bytes());
        }
    }
    encoder.finish().unwrap_or_default()
}

/// A bundle's file name: bundles sort by boot and proving.
#[must_use]
pub fn name(report: &JoinReport) -> String {
    let boot: String = report.boot.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let at: String = report.updated.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    format!("{at}-{boot}-{:03}.txt.gz", report.attempt)
}

/// Keeps a bundle on the disk, and the last few beside it.
///
/// # Errors
/// When it cannot be written.
pub fn keep(root: &Root, name: &str, bundle: &[u8]) -> Result<(), FileError> {
    let directory = root.path(JOIN_STATE_DIR).join("evidence");
    files::make_dir(&directory, 0o700)?;
    // Room first: the disk may be full of what we kept.
    let kept: Vec<String> =
        files::names_in(&directory).into_iter().filter(|other| other.ends_with(".gz")).collect();
    let superfluous = (kept.len() + 1).saturating_sub(KEPT);
    for old in kept.iter().take(superfluous) {
        files::remove(&directory.join(old))?;
    }
    files::write_atomic(&directory.join(name), bundle, 0o600)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use contract::Reason;
    use contract::join_report::JoinOutcome;

    use super::*;
    use crate::report::tests::report;

    fn unpack(bundle: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bundle).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_bundle_fits_whatever_it_holds() {
        // Nothing that gzip could make smaller, in text.
        let mut seed = 7_u64;
        let noise: String = (0..2_000_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(32 + u8::try_from(seed >> 33 & 63).unwrap())
            })
            .collect();
        let sections: Vec<Section> =
            (0..8).map(|n| (format!("log {n}"), format!("{noise}end {n}"))).collect();
        let bundle = pack(&sections, &Redactor::default());
        assert!(bundle.len() <= SIZE_MAX, "{}", bundle.len());
        let text = unpack(&bundle);
        assert!(text.contains("end 0\n==> log 1 <=="), "ends stay, beginnings go");
    }

    #[test]
    fn the_last_five_are_kept_for_root_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut failed = report(JoinOutcome::Failed, &[Reason::GpuLost]);
        for attempt in 1..=9 {
            failed.attempt = attempt;
            keep(&root, &name(&failed), b"x").unwrap();
        }
        let directory = root.path(JOIN_STATE_DIR).join("evidence");
        let names = files::names_in(&directory);
        assert_eq!(names.len(), KEPT);
        assert!(names[0].ends_with("005.txt.gz"), "{names:?}");
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&directory) & 0o777, 0o700);
        assert_eq!(mode(&directory.join(&names[0])) & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_node_without_anything_still_leaves_its_report() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.path("/etc/rollcall")).unwrap();
        std::fs::write(root.path(AGENT_CONFIG_PATH), "proxy: http://joe:hunter2@p:1\n").unwrap();
        let failed = report(JoinOutcome::Failed, &[Reason::GpuLost]);
        let text = unpack(&gather(&root, &failed, &Redactor::default()).await);
        assert!(text.contains("GpuLost") && text.contains("journalctl"), "{text}");
        assert!(text.contains("http://[redacted]@p:1") && !text.contains("hunter2"), "{text}");
    }
}
