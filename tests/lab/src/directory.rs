//! The lab's directory: where everything of one lab lies, and how its parts are written.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What could not be done in the lab's directory.
#[derive(Debug, Error)]
#[error("could not {action} `{}`", path.display())]
pub struct DirectoryError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DirectoryError {
    /// For use with `map_err`: what was tried, and on what.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// The directory of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDirectory(PathBuf);

impl LabDirectory {
    /// The directory at `path`, which is made when it is missing.
    ///
    /// # Errors
    /// When it can be neither made nor resolved.
    pub fn create(path: &Path) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path).map_err(DirectoryError::of("make directory", path))?;
        Self::open(path)
    }

    /// The directory at `path`, by its absolute name: processes are recognised by it.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        path.canonicalize().map(Self).map_err(DirectoryError::of("open directory", path))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What runs, written by the supervisor.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("lab.json")
    }

    /// The supervisor's pid, for people; programs read [`Self::record`].
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("supervisor.pid")
    }

    /// Held by the supervisor for as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("supervisor.lock")
    }

    /// The supervisor's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    /// The emulator's log.
    #[must_use]
    pub fn emulator_log(&self) -> PathBuf {
        self.0.join("emulator.log")
    }

    /// The variables that point programs at this lab, to be sourced by a shell.
    #[must_use]
    pub fn env(&self) -> PathBuf {
        self.0.join("env")
    }

    /// The Kubernetes stand-in's own files.
    #[must_use]
    pub fn kubernetes(&self) -> PathBuf {
        self.0.join("kubernetes")
    }

    /// The lab's programs, apart from the build so that a rebuild does not change a running lab.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// What the image has baked in of the agent.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> PathBuf {
        self.0.join("nodes")
    }

    /// One node's root directory.
    #[must_use]
    pub fn node_root(&self, instance_id: &str) -> PathBuf {
        self.nodes().join(instance_id).join("root")
    }

    /// Removes what an earlier lab left here: its world is gone, since the emulator keeps it in
    /// memory. What is not ours stays.
    ///
    /// # Errors
    /// When something of ours cannot be removed.
    pub fn clear(&self) -> Result<(), DirectoryError> {
        for directory in [self.nodes(), self.kubernetes(), self.programs(), self.image()] {
            ignore_missing(fs::remove_dir_all(&directory))
                .map_err(DirectoryError::of("remove directory", &directory))?;
        }
        for file in [self.record(), self.pid_file(), self.log(), self.emulator_log(), self.env()] {
            ignore_missing(fs::remove_file(&file)).map_err(DirectoryError::of("remove", &file))?;
        }
        Ok(())
    }
}

/// Done already is done.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a file as a whole: readers see the old content or the new, never half of it.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), DirectoryError> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(DirectoryError::of("make directory", directory))?;
    let written = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)
        .and_then(|mut file| {
            file.write_all(content)?;
            // The umask has cut the mode that the builder asked for.
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.persist(path).map_err(|e| e.error)
        });
    written.map(drop).map_err(DirectoryError::of("write", path))
}

/// Makes `to` the same file as `from`: a hard link, or a copy where the file systems differ.
///
/// # Errors
/// When neither works.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<(), DirectoryError> {
    let directory = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(DirectoryError::of("make directory", directory))?;
    ignore_missing(fs::remove_file(to)).map_err(DirectoryError::of("replace", to))?;
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .map_err(DirectoryError::of("install", to))
}

/// Makes every file below `from` the same below `to`, by links where it can.
///
/// # Errors
/// When a directory cannot be read or a file not be installed.
pub fn link_tree(from: &Path, to: &Path) -> Result<(), DirectoryError> {
    let entries = fs::read_dir(from).map_err(DirectoryError::of("open directory", from))?;
    for entry in entries {
        let entry = entry.map_err(DirectoryError::of("read directory", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            link_tree(&path, &target)?;
        } else {
            link_or_copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn clearing_leaves_what_is_not_ours() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = LabDirectory::create(temporary.path()).unwrap();
        fs::create_dir_all(directory.node_root("i-1")).unwrap();
        fs::write(directory.env(), "x").unwrap();
        fs::write(directory.path().join("notes.txt"), "mine").unwrap();
        directory.clear().unwrap();
        directory.clear().unwrap();
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "notes.txt");
    }

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        write_atomically(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o755).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
