//! The image that `make image` has left in `target/image`: its disk, which is laid over the userland of the virtual
//! machine, and what its manifest says of the agent in it.
//!
//! What the folders of a disk are stands in `tests/lab/src/nodes/machine/disk.rs`. The layers of `/usr` below its own
//! are the userland of the host that it was built on; here the machine's own is in their place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use lab::instances::install::sha256;
use serde_json::Value;

use super::disk::run;

/// Folders that replace the userland's, by their places; all but `/usr`, which is laid over it.
const REPLACED: [(&str, &str); 5] =
    [("etc", "etc"), ("var", "var"), ("home", "home"), ("opt", "opt"), ("superuser", "root")];

/// In the names of files that a machine of the lab has for its lab's sake: the one that Packer built on is gone.
const OF_THE_LAB: &str = "rollcall-lab";

/// The overlay is the kernel's own, whiteouts and all; it is gone with the shell's namespace.
const MERGE: &str =
    "mount -t overlay overlay -o \"ro,lowerdir=$0:$1\" \"$2\" && exec cp -a \"$2/.\" \"$3\"";

/// A baked image.
#[derive(Clone, Debug)]
pub struct Baked {
    disk: PathBuf,
    /// SHA-256 of the agent's tarball, as the image's manifest has it.
    pub tarball: String,
    /// SHA-256 of the agent's program in that tarball.
    pub agent: String,
}

impl Baked {
    /// The image in this folder; none where nothing was built.
    ///
    /// # Errors
    /// When its manifest cannot be read, or it was made of another tarball than this build's.
    pub fn find(folder: &Path, tarball: &Path) -> anyhow::Result<Option<Self>> {
        let disk = folder.join("disk");
        if !disk.is_dir() {
            return Ok(None);
        }
        let path = folder.join("rollcall-image-image.json");
        let text =
            fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
        let manifest: Value = serde_json::from_slice(&text)
            .with_context(|| format!("`{}` is no JSON", path.display()))?;
        let named = manifest["agent"]["sha256"].as_str().context("a manifest without an agent")?;
        let bytes = fs::read(tarball)
            .with_context(|| format!("could not read `{}`: make build", tarball.display()))?;
        let built = sha256(&bytes);
        ensure!(
            named == built,
            "the image in `{}` has the agent's tarball {named}, and this build's is {built}: make image",
            folder.display()
        );
        let program = Command::new("tar")
            .arg("-xzOf")
            .args([tarball.as_os_str(), "./usr/bin/rollcall-agent".as_ref()])
            .stdin(Stdio::null())
            .output()
            .context("could not run `tar`")?;
        ensure!(program.status.success(), "`{}` holds no agent", tarball.display());
        Ok(Some(Self { disk, tarball: built, agent: sha256(&program.stdout) }))
    }

    /// Lays it over the userland below `tree`; `work` is a folder for what lies there meanwhile.
    ///
    /// # Errors
    /// When something cannot be copied, or every instance of the image would have one id.
    pub fn lay_over(&self, tree: &Path, work: &Path) -> anyhow::Result<()> {
        merge(&self.disk.join("upper"), &tree.join("usr"), work)?;
        for (folder, place) in REPLACED {
            let to = tree.join(place);
            if to.exists() {
                fs::remove_dir_all(&to)
                    .with_context(|| format!("could not remove `{}`", to.display()))?;
            }
            run(Command::new("cp").args(["-a", "-T"]).arg(self.disk.join(folder)).arg(&to))?;
        }
        let id = fs::read_to_string(tree.join("etc/machine-id")).context("no machine-id")?;
        ensure!(id.trim().is_empty(), "the image has the machine-id {id}");
        let of_the_lab = format!("*{OF_THE_LAB}*");
        let mut find = Command::new("find");
        run(find.arg(tree.join("etc")).args(["-type", "f", "-name", &of_the_lab, "-delete"]))
    }
}

/// Lays the upper layer of an overlay over a folder, so that what it removes is gone.
fn merge(upper: &Path, lower: &Path, work: &Path) -> anyhow::Result<()> {
    let (seen, merged) = (work.join("seen"), work.join("merged"));
    for folder in [&seen, &merged] {
        fs::create_dir_all(folder)
            .with_context(|| format!("could not make `{}`", folder.display()))?;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MERGE]).args([upper, lower]);
    run(command.args([&seen, &merged]))?;
    fs::remove_dir_all(lower).with_context(|| format!("could not remove `{}`", lower.display()))?;
    fs::rename(&merged, lower).with_context(|| format!("could not make `{}`", lower.display()))?;
    fs::remove_dir(&seen).with_context(|| format!("could not remove `{}`", seen.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_disk_is_laid_over_a_userland_and_what_it_removes_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, tree) = (dir.path().join("disk"), dir.path().join("tree"));
        for (folder, _) in REPLACED {
            fs::create_dir_all(disk.join(folder)).unwrap();
        }
        file(&disk.join("upper/bin/agent"), "baked");
        file(&disk.join("etc/machine-id"), "");
        file(&disk.join("etc/systemd/system.conf.d/10-rollcall-lab.conf"), "of another lab");
        for below in ["usr/bin/agent", "usr/bin/removed", "usr/bin/kept", "etc/of-the-userland"] {
            file(&tree.join(below), "userland");
        }
        let mut mknod = Command::new("mknod");
        mknod.arg(disk.join("upper/bin/removed")).args(["c", "0", "0"]);
        let overlay = Command::new("unshare").args(["--mount", "true"]).output();
        if run(&mut mknod).is_err() || !overlay.is_ok_and(|ended| ended.status.success()) {
            eprintln!("not tried: whiteouts and mounts are root's");
            return;
        }
        let baked = Baked { disk: disk.clone(), tarball: String::new(), agent: String::new() };
        baked.lay_over(&tree, dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(tree.join(path)).ok();
        assert_eq!(read("usr/bin/agent").as_deref(), Some("baked"));
        assert_eq!(read("usr/bin/kept").as_deref(), Some("userland"));
        assert!(fs::symlink_metadata(tree.join("usr/bin/removed")).is_err());
        assert_eq!(read("etc/of-the-userland"), None);
        assert_eq!(read("etc/systemd/system.conf.d/10-rollcall-lab.conf"), None);
        file(&disk.join("etc/machine-id"), "4f5\n");
        let error = baked.lay_over(&tree, dir.path()).unwrap_err();
        assert!(error.to_string().contains("machine-id 4f5"), "{error}");
    }

    #[test]
    fn an_image_of_another_build_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tarball = dir.path().join("agent.tar.gz");
        file(&tarball, "this build's");
        assert!(Baked::find(dir.path(), &tarball).unwrap().is_none());
        fs::create_dir(dir.path().join("disk")).unwrap();
        let manifest = dir.path().join("rollcall-image-image.json");
        file(&manifest, "{\"agent\": {\"sha256\": \"00\"}}");
        let error = Baked::find(dir.path(), &tarball).unwrap_err().to_string();
        assert!(
            error.contains("has the agent's tarball 00") && error.contains("make image"),
            "{error}"
        );
    }
}
