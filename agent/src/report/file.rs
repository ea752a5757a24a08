//! The report on the node, which the watch and `status` read.

use contract::names::{JOIN_RUN_DIR, REPORT_PATH};
use contract::{ErrorChain, JoinReport};

use crate::host::Root;
use crate::host::files::{self, FileError};

/// Replaces the report; a failure is logged and holds nobody up.
pub fn write(root: &Root, report: &JoinReport) {
    let bytes = serde_json::to_vec_pretty(report).unwrap_or_default();
    let written = files::make_dir(&root.path(JOIN_RUN_DIR), 0o755)
        .and_then(|()| files::write_for_this_boot(&root.path(REPORT_PATH), &bytes, 0o644));
    if let Err(error) = written {
        tracing::warn!(error = %ErrorChain(&error), "the report was not written");
    }
}

/// Why there is no report to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no report.
    #[error("`{REPORT_PATH}` is no join report")]
    Malformed(#[source] serde_json::Error),
}

/// Reads the report.
///
/// # Errors
/// When there is none, or it is not one.
pub fn read(root: &Root) -> Result<JoinReport, ReadError> {
    let bytes = files::read(&root.path(REPORT_PATH))?;
    serde_json::from_slice(&bytes).map_err(ReadError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use contract::Reason;
    use contract::join_report::JoinOutcome;

    use super::*;

    #[test]
    fn what_is_written_can_be_read_by_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let report = super::super::tests::report(JoinOutcome::Failed, &[Reason::GpuLost]);
        write(&root, &report);
        assert_eq!(read(&root).unwrap(), report);
        let mode = |path: &str| std::fs::metadata(root.path(path)).unwrap().permissions().mode();
        assert_eq!(mode(REPORT_PATH) & 0o777, 0o644);
        assert_eq!(mode(JOIN_RUN_DIR) & 0o777, 0o755);
        std::fs::write(root.path(REPORT_PATH), "{").unwrap();
        assert!(matches!(read(&root), Err(ReadError::Malformed(_))));
    }
}
