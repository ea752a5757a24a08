//! Whether a program of the node can be executed, without executing it.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use super::Root;

/// Where PID 1 looks for programs: `systemd.exec(5)`, `$PATH`.
const SEARCHED: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The machine in an ELF header (`e_machine`) that this processor runs; none where we do not know.
const MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(62)
} else if cfg!(target_arch = "aarch64") {
    Some(183)
} else {
    None
};

/// A program that the node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// It is there and can be executed.
    Usable,
    /// It is there and cannot be executed, and why.
    Unusable(String),
    /// There is none.
    Missing,
}

/// Looks at the program at `path`.
#[must_use]
pub fn look(path: &Path) -> Program {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Program::Missing;
        }
        Err(error) => return Program::Unusable(error.to_string()),
    };
    let mode = meta.permissions().mode() & 0o7777;
    let why = if !meta.is_file() {
        Some("it is no file".to_owned())
    } else if mode & 0o111 == 0 {
        Some(format!("nobody may execute it: its mode is {mode:04o}"))
    } else {
        refused_by_kernel(path).or_else(|| foreign(path))
    };
    why.map_or(Program::Usable, Program::Unusable)
}

/// Looks for the program `name` where PID 1 does; the first usable one counts.
#[must_use]
pub fn search(root: &Root, name: &str) -> Program {
    let mut found = Program::Missing;
    for directory in SEARCHED {
        match look(&root.path(PathBuf::from(directory).join(name))) {
            Program::Usable => return Program::Usable,
            Program::Missing => {}
            unusable @ Program::Unusable(_) => found = unusable,
        }
    }
    found
}

/// access(2) asks the mount and the security module too, not only the mode.
fn refused_by_kernel(path: &Path) -> Option<String> {
    let error = access(path, AccessFlags::X_OK).err()?;
    let is_noexec = statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
    Some(match is_noexec {
        true => "its file system is mounted noexec".to_owned(),
        false => format!("the kernel refuses it: {}", error.desc()),
    })
}

/// Whether the content can be run here: anything but an empty file or another processor's program.
fn foreign(path: &Path) -> Option<String> {
    let mut head = [0; 20];
    let mut file = fs::File::open(path).ok()?;
    let count = file.read(&mut head).ok()?;
    if count == 0 {
        return Some("it is empty".into());
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let is_elf = count == head.len() && head.starts_with(b"\x7fELF");
    let other = is_elf && MACHINE.is_some_and(|ours| ours != machine);
    other.then(|| format!("it is for another processor (ELF machine {machine})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_a_program_cannot_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        assert_eq!(look(&path), Program::Missing);
        assert_eq!(look(&path.join("below a file")), Program::Missing);
        let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
        arm.resize(18, 0);
        arm.extend(if MACHINE == Some(183) { [62, 0] } else { [183, 0] });
        for (content, mode, says) in [
            (&b"#!/bin/sh\n"[..], 0o644, "mode is 0644"),
            (&b""[..], 0o755, "empty"),
            (&arm, 0o755, "another processor"),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let Program::Unusable(why) = look(&path) else { panic!("{says}") };
            assert!(why.contains(says), "{why}");
        }
        assert!(matches!(look(dir.path()), Program::Unusable(_)));
        assert_eq!(look(Path::new("/bin/sh")), Program::Usable);
    }

    #[test]
    fn the_first_usable_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(search(&root, "aws"), Program::Missing);
        for (directory, mode) in [("/usr/local/bin", 0o644), ("/usr/bin", 0o755)] {
            fs::create_dir_all(root.path(directory)).unwrap();
            let path = root.path(directory).join("aws");
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(search(&root, "aws"), Program::Usable);
        fs::remove_file(root.path("/usr/bin/aws")).unwrap();
        assert!(matches!(search(&root, "aws"), Program::Unusable(_)));
    }
}
