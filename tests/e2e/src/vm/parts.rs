//! What a virtual machine is made of, in the cache that `tests/lab/vm/setup.sh` fills.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// The set-up script's exit code where this machine cannot have the parts.
const CANNOT: i32 = 3;

/// Where they are.
#[derive(Clone, Debug)]
pub struct Parts {
    /// QEMU, its firmware, busybox and the kernel with its modules, unpacked.
    pub qemu: PathBuf,
    /// The base of a disk.
    pub base: PathBuf,
}

impl Parts {
    /// Gets what is missing. None where that cannot be had here: the script has said why.
    ///
    /// # Errors
    /// When the script fails in another way.
    pub fn get(repository: &Path) -> anyhow::Result<Option<Self>> {
        let script = repository.join("tests/lab/vm/setup.sh");
        let run = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let run = run.with_context(|| format!("could not run `{}`", script.display()))?;
        if run.status.code() == Some(CANNOT) {
            return Ok(None);
        }
        ensure!(run.status.success(), "`{}` ended with {}", script.display(), run.status);
        let said = String::from_utf8(run.stdout).context("the cache's name is not UTF-8")?;
        let dir = PathBuf::from(said.trim());
        Ok(Some(Self { qemu: dir.join("qemu"), base: dir.join("base") }))
    }

    /// The kernel.
    ///
    /// # Errors
    /// When the package brought none.
    pub fn kernel(&self) -> anyhow::Result<PathBuf> {
        let boot = self.qemu.join("boot");
        let files = std::fs::read_dir(&boot).context("no kernel")?.flatten();
        let mut kernels = files.map(|file| file.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        });
        kernels.next().with_context(|| format!("no kernel in `{}`", boot.display()))
    }

    /// A module of that kernel.
    ///
    /// # Errors
    /// When it has no such module.
    pub fn module(&self, name: &str) -> anyhow::Result<PathBuf> {
        let wanted = format!("{name}.ko");
        let mut folders = vec![self.qemu.join("usr/lib/modules")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).context("no modules")?.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if entry.file_name() == wanted.as_str() {
                    return Ok(path);
                }
            }
        }
        anyhow::bail!("the kernel has no module `{name}`")
    }
}
