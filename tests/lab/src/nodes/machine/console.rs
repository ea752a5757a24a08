//! A machine's serial console: a terminal, whose other end is written to a file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

/// The lab's side of a console.
#[derive(Debug)]
pub(super) struct Console {
    /// The terminal that is the machine's `/dev/console`.
    pub(super) terminal: PathBuf,
    /// Open for as long as the machine lives, so that reading does not end between two writers.
    _held: OwnedFd,
}

impl Console {
    /// A terminal whose output is appended to `file`.
    pub(super) fn open(file: &Path) -> std::io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(file)?;
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let terminal = PathBuf::from(ptsname_r(&master)?);
        // Without O_NOCTTY it would become this session leader's own, and its end the lab's.
        let flags = OFlag::O_NOCTTY.bits();
        let held =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&terminal)?.into();
        let master = OwnedFd::from(master);
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || copy(File::from(master), log))?;
        Ok(Self { terminal, _held: held })
    }
}

/// Ends when nobody has the terminal open any more.
fn copy(mut from: File, mut to: File) {
    let mut buffer = [0; 4096];
    while let Ok(length) = from.read(&mut buffer)
        && length > 0
    {
        // A terminal ends lines with a carriage return as well.
        let text: Vec<u8> = buffer[..length].iter().copied().filter(|b| *b != b'\r').collect();
        if to.write_all(&text).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_printed_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("console");
        let console = Console::open(&file).unwrap();
        std::fs::write(&console.terminal, "one\ntwo\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::read_to_string(&file).unwrap() != "one\ntwo\n" {
            assert!(Instant::now() < deadline, "{:?}", std::fs::read_to_string(&file));
            std::thread::yield_now();
        }
    }
}
