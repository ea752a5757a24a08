//! The disk of an image, as the lab keeps it: what an installation of the agent must have put there, and what must not be there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The folders of a disk by the places that they are seen at.
const PLACES: [(&str, &str); 6] = [
    ("upper", "/usr"),
    ("etc", "/etc"),
    ("var", "/var"),
    ("home", "/home"),
    ("opt", "/opt"),
    ("superuser", "/root"),
];

/// What a build leaves in `/usr` besides the files of the list.
const OF_THE_BUILD: &str = "/usr/share/rollcall/image.json";

/// What must not be in an image, by how its place begins and what is in its name.
const FORBIDDEN: [(&str, &str); 13] = [
    ("/etc/ssh/ssh_host_", ""),
    ("/root/.ssh", ""),
    ("/home/ec2-user/.ssh", ""),
    ("/home/", "_history"),
    ("/root/", "_history"),
    ("/etc/rollcall", ""),
    ("/var/lib/rollcall", ""),
    ("/var/lib/cloud/", ""),
    ("/var/lib/kubelet/", ""),
    ("/var/log/journal/", ""),
    ("/var/lib/systemd/random-seed", ""),
    ("/etc/cni/net.d/", ""),
    ("/etc/eks/nodeadm.d/99-rollcall", ""),
];

/// The disk of an image.
#[derive(Debug)]
pub struct Tree {
    disk: PathBuf,
}

/// One file of the list that `amis/files` is.
struct Listed<'a> {
    mode: u32,
    is_directory: bool,
    place: &'a str,
}

impl Tree {
    /// The disk in this folder.
    #[must_use]
    pub fn at(disk: &Path) -> Self {
        Self { disk: disk.to_owned() }
    }

    /// Where a place of the image lies here.
    fn path(&self, place: &str) -> PathBuf {
        let found = PLACES.iter().find_map(|(folder, at)| {
            let rest = place.strip_prefix(at)?;
            rest.starts_with('/').then(|| self.disk.join(folder).join(rest.trim_start_matches('/')))
        });
        found.unwrap_or_else(|| self.disk.join("nowhere"))
    }

    /// Everything that is on the disk, by its place in the image.
    fn places(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (folder, at) in PLACES {
            walk(&self.disk.join(folder), at, &mut found);
        }
        found.sort();
        found
    }

    /// What is wrong with it, a line each; `files` is the text of `amis/files`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn problems(&self, files: &str) -> anyhow::Result<Vec<String>> {
        let mut problems = Vec::new();
        let listed: Vec<Listed<'_>> = files.lines().filter_map(Listed::of).collect();
        for one in &listed {
            problems.extend(self.differs(one));
        }
        let places = self.places();
        let known: BTreeSet<&str> = listed.iter().map(|one| one.place).collect();
        for place in &places {
            let is_folder = self.path(place).is_dir();
            let is_ours = known.contains(place.as_str()) || place == OF_THE_BUILD;
            if place.starts_with("/usr/") && !is_folder && !is_ours {
                problems.push(format!("{place}: nobody lists it"));
            }
            let forbidden = FORBIDDEN
                .iter()
                .any(|(begin, part)| place.starts_with(begin) && place.contains(part));
            if forbidden {
                problems.push(format!("{place}: it must not be in an image"));
            }
            let log = place.starts_with("/var/log/")
                && fs::metadata(self.path(place)).is_ok_and(|m| m.is_file() && m.len() > 0);
            if log {
                problems.push(format!("{place}: a log of the machine that it was built on"));
            }
        }
        problems.extend(self.units());
        let id = self.path("/etc/machine-id");
        let id = fs::read_to_string(&id)
            .with_context(|| format!("could not read `{}`", id.display()))?;
        if !id.trim().is_empty() {
            problems.push("/etc/machine-id: every instance would have the same id".to_owned());
        }
        Ok(problems)
    }

    /// How a file differs from its line in the list.
    fn differs(&self, listed: &Listed<'_>) -> Option<String> {
        let place = listed.place;
        let Ok(meta) = fs::symlink_metadata(self.path(place)) else {
            return Some(format!("{place}: it is not there"));
        };
        let (mode, owner) = (meta.mode() & 0o7777, (meta.uid(), meta.gid()));
        if meta.is_dir() != listed.is_directory {
            return Some(format!("{place}: it is of another kind than the list says"));
        }
        if mode != listed.mode {
            return Some(format!(
                "{place}: its mode is {mode:04o} and must be {:04o}",
                listed.mode
            ));
        }
        (owner != (0, 0)).then(|| format!("{place}: it belongs to {owner:?} and not to root"))
    }

    /// What starts at boot that must not, and the other way round.
    fn units(&self) -> Vec<String> {
        let wanted = |unit: &str| self.starts(unit);
        let mut problems = Vec::new();
        let stock = ["nodeadm-boot-hook.service", "nodeadm-config.service"];
        let ours = ["rollcall-join.service", "rollcall-agent.service", "rollcall-gpu-reset.path"];
        for unit in ours.into_iter().chain(stock).filter(|unit| !wanted(unit)) {
            problems.push(format!("{unit}: nothing starts it at boot"));
        }
        for unit in ["nodeadm-run.service", "kubelet.service"] {
            let path = self.path("/etc/systemd/system").join(unit);
            if wanted(unit) {
                problems.push(format!("{unit}: it starts at boot, past the join"));
            }
            if !path.is_file() || fs::read_link(&path).is_ok() {
                problems.push(format!("{unit}: it is masked or gone, and it is the fallback's"));
            }
        }
        problems
    }

    /// Whether something wants a unit at boot.
    fn starts(&self, unit: &str) -> bool {
        let system = self.path("/etc/systemd/system");
        let Ok(entries) = fs::read_dir(&system) else { return false };
        entries.flatten().any(|entry| {
            entry.path().extension().is_some_and(|kind| kind == "wants")
                && fs::symlink_metadata(entry.path().join(unit)).is_ok()
        })
    }
}

impl<'a> Listed<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mode = words.next().filter(|word| !word.starts_with('#'))?;
        let (source, place) = (words.next()?, words.next()?);
        Some(Self { mode: u32::from_str_radix(mode, 8).ok()?, is_directory: source == "-", place })
    }
}

/// Everything below a folder, links not followed.
fn walk(folder: &Path, at: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let place = format!("{at}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &place, found);
        }
        found.push(place);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const FILES: &str =
        "# mode source place\n0755  agent  /usr/bin/rollcall-agent\n0755  -  /etc/eks/nodeadm.d\n";

    fn file(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A disk with nothing wrong, where this user's files count as root's.
    fn disk() -> tempfile::TempDir {
        let disk = tempfile::tempdir().unwrap();
        let at = |place: &str| disk.path().join(place);
        file(&at("upper/bin/rollcall-agent"), "", 0o755);
        file(&at("upper/share/rollcall/image.json"), "{}", 0o644);
        file(&at("etc/machine-id"), "", 0o644);
        fs::create_dir_all(at("etc/eks/nodeadm.d")).unwrap();
        fs::set_permissions(at("etc/eks/nodeadm.d"), fs::Permissions::from_mode(0o755)).unwrap();
        let system = "etc/systemd/system";
        for unit in [
            "rollcall-join.service",
            "rollcall-agent.service",
            "rollcall-gpu-reset.path",
            "nodeadm-boot-hook.service",
            "nodeadm-config.service",
        ] {
            let link = at(&format!("{system}/multi-user.target.wants/{unit}"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink("/nowhere", link).unwrap();
        }
        for unit in ["nodeadm-run.service", "kubelet.service"] {
            file(&at(&format!("{system}/{unit}")), "", 0o644);
        }
        disk
    }

    fn problems(disk: &tempfile::TempDir) -> Vec<String> {
        let mut all = Tree::at(disk.path()).problems(FILES).unwrap();
        all.retain(|problem| !problem.contains("and not to root"));
        all
    }

    #[test]
    fn nothing_is_wrong_with_a_good_disk() {
        assert_eq!(problems(&disk()), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named() {
        type Break = fn(&Path);
        let faults: [(Break, &str); 9] = [
            (
                |d| fs::remove_file(d.join("upper/bin/rollcall-agent")).unwrap(),
                "/usr/bin/rollcall-agent: it is not there",
            ),
            (|d| file(&d.join("upper/bin/rollcall-agent"), "", 0o775), "its mode is 0775"),
            (|d| file(&d.join("upper/bin/stray"), "", 0o755), "/usr/bin/stray: nobody lists it"),
            (|d| file(&d.join("etc/machine-id"), "4f5\n", 0o644), "/etc/machine-id: "),
            (
                |d| file(&d.join("etc/ssh/ssh_host_ed25519_key"), "", 0o600),
                "ssh_host_ed25519_key: it must not be",
            ),
            (
                |d| file(&d.join("home/ec2-user/.ssh/authorized_keys"), "", 0o600),
                "authorized_keys: it must not be",
            ),
            (|d| file(&d.join("var/log/secure"), "a line", 0o600), "/var/log/secure: a log"),
            (
                |d| {
                    symlink(
                        "/nowhere",
                        d.join("etc/systemd/system/multi-user.target.wants/nodeadm-run.service"),
                    )
                    .unwrap()
                },
                "nodeadm-run.service: it starts at boot",
            ),
            (
                |d| {
                    let unit = d.join("etc/systemd/system/nodeadm-run.service");
                    fs::remove_file(&unit).unwrap();
                    symlink("/dev/null", unit).unwrap();
                },
                "nodeadm-run.service: it is masked",
            ),
        ];
        for (break_it, expected) in faults {
            let disk = disk();
            break_it(disk.path());
            let found = problems(&disk);
            assert!(
                found.iter().any(|problem| problem.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }
}
