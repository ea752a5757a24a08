//! Files: read with a bound, written whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The largest file that [`read`] takes: nothing that the agent reads is near it.
pub const READ_MAX: u64 = 4 * 1024 * 1024;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed; the file is as it was.
    #[error("could not write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a file of at most [`READ_MAX`] bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        // Not blocking: a FIFO under the name of a file must not hold the join.
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        let mut bytes = Vec::new();
        file.take(READ_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > READ_MAX {
            return Err(io::Error::other(format!("larger than {READ_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| FileError::Read { path: path.to_owned(), source })
}

/// Reads a file as text; what is not UTF-8 is replaced.
///
/// # Errors
/// As [`read`].
pub fn read_text(path: &Path) -> Result<String, FileError> {
    read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a directory and what is missing above it, with `mode`.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Replaces `path` by `bytes` with `mode`: the file is the old one or the new one, never a part,
/// through crashes and power loss (temporary file, fsync, rename, fsync of the directory).
///
/// # Errors
/// When any step fails; the file is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode, true)
}

/// The same, through crashes of ours but not through power loss: for what means nothing after the next
/// boot. Waiting for the disk some fifty times would be a good part of what a join takes
/// (docs/decisions/0011-what-is-synced.md).
///
/// # Errors
/// As [`write_atomic`].
pub fn write_for_this_boot(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode, false)
}

fn replace(path: &Path, bytes: &[u8], mode: u32, synced: bool) -> Result<(), FileError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(FileError::Write { path: path.to_owned(), source });
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(temporary);

    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&temporary)?;
        // The mode of `open` is cut by the umask and not applied to a file left by a crash.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        if !synced {
            return fs::rename(&temporary, path);
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| {
        // The best that can be done about a leftover is to try: its failure changes nothing.
        let _ = fs::remove_file(&temporary);
        FileError::Write { path: path.to_owned(), source }
    })
}

/// Removes a file; one that is not there is as good as removed.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Whether `path` is a file that somebody may execute.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The names in a directory, sorted; empty when there is none.
#[must_use]
pub fn names_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        write_atomic(&path, b"old", 0o600).unwrap();
        write_atomic(&path, b"new", 0o644).unwrap();
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(names_in(dir.path()), ["report.json"]);
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        let error = write_atomic(&path, b"new", 0o644).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(names_in(dir.path()), ["taken"]);
        assert!(write_for_this_boot(&dir.path().join("no/such/dir"), b"", 0o644).is_err());
        assert!(write_atomic(&dir.path().join("no/such/dir"), b"", 0o644).is_err());
    }

    #[test]
    fn reading_is_bounded_and_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(READ_MAX + 1).unwrap();
        assert!(read(&large).is_err());
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&fifo).unwrap(), b"");
        assert!(read(&dir.path().join("none")).unwrap_err().is_not_found());
    }

    #[test]
    fn removing_twice_is_removing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "x").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(remove(dir.path()).is_err());
    }
}
