//! Programs that start late, as from a volume whose blocks still come from a snapshot.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::local::{KEPT, keep, kept, put_back, write};

/// The programs that a join runs.
const PROGRAMS: [&str; 6] = [
    "usr/bin/nodeadm",
    "usr/bin/kubelet",
    "usr/bin/systemctl",
    "usr/bin/journalctl",
    "usr/bin/nvidia-ctk",
    "usr/bin/aws",
];

/// Makes them start so many milliseconds later on the node at `root`.
pub(super) fn lay(root: &Path, milliseconds: u64) -> io::Result<()> {
    for program in PROGRAMS {
        let path = root.join(program);
        if path.symlink_metadata().is_ok() {
            keep(&path)?;
            write(&path, script(program, milliseconds).as_bytes(), 0o755)?;
        }
    }
    Ok(())
}

/// Makes them what they were.
pub(super) fn lift(root: &Path) -> io::Result<()> {
    let late = PROGRAMS.iter().map(|program| root.join(program));
    late.filter(|path| kept(path).symlink_metadata().is_ok()).try_for_each(|path| put_back(&path))
}

/// The real one under its own name, which says what it is to be, after a while.
fn script(program: &str, milliseconds: u64) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let seconds = Duration::from_millis(milliseconds).as_secs_f64();
    format!(
        "#!/bin/bash\n# A fault of the lab.\nsleep {seconds}\n\
         exec -a \"${{0%/*}}/{name}\" \"$0{KEPT}\" \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_program_is_itself_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("usr/bin/aws");
        write(&path, b"#!/bin/sh\necho \"$*\"\n", 0o755).unwrap();
        lay(root.path(), 10).unwrap();
        let said = std::process::Command::new(&path).args(["eks", "get token"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "eks get token\n");
        lift(root.path()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("#!/bin/sh\necho"));
        assert!(!root.path().join("usr/bin/nodeadm").exists());
    }
}
