//! What a machine keeps when it is off, and what an image that was made of it holds.
//!
//! A disk is the folders that `init.sh` mounts: the upper layer of `/usr` and the machine's own `/etc`, `/var`, `/home`, `/opt` and
//! `/root`. An image is a copy of them below the lab's `machines/disks/<image id>`, with the list of layers that were below.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ground, MachineError};
use crate::directory::{DirectoryError, ignore_missing};

/// What is written beside the folders: the layers of `/usr` below `upper`, uppermost first.
const LAYERS: &str = "layers";
/// The machine's own layer of `/usr`.
const UPPER: &str = "upper";
/// Folders that are bound, by their names beside the machine's scripts; `superuser` is `/root`.
const BOUND: [&str; 5] = ["etc", "var", "home", "opt", "superuser"];

/// Where the disk of an image lies.
fn place(ground: &Ground, image_id: &str) -> PathBuf {
    ground.dir.join("disks").join(image_id)
}

/// The disk of an image that was made here; none for images that EKS brings.
pub(super) fn of_image(ground: &Ground, image_id: &str) -> Option<PathBuf> {
    Some(place(ground, image_id)).filter(|disk| !image_id.is_empty() && disk.is_dir())
}

/// Keeps the disk of the machine in `node` as an image's.
///
/// # Errors
/// When it cannot be copied; there is no image then.
pub fn keep(ground: &Ground, node: &Path, image_id: &str) -> Result<(), MachineError> {
    let (machine, disk) = (node.join("machine"), place(ground, image_id));
    if disk.is_dir() {
        return Ok(());
    }
    let unfinished = disk.with_extension("new");
    ignore_missing(fs::remove_dir_all(&unfinished))
        .map_err(DirectoryError::of("replace", &unfinished))?;
    fs::create_dir_all(&unfinished).map_err(DirectoryError::of("make directory", &unfinished))?;
    for name in BOUND.into_iter().chain([UPPER, LAYERS]) {
        copy(&machine.join(name), &unfinished)?;
    }
    fs::rename(&unfinished, &disk).map_err(DirectoryError::of("put in place", &disk))?;
    Ok(())
}

/// Lays an image's disk into a new machine's folder; its `/usr` stays where it is, as a layer.
pub(super) fn lay(disk: &Path, machine: &Path) -> Result<(), MachineError> {
    for name in BOUND {
        copy(&disk.join(name), machine)?;
    }
    Ok(())
}

/// The layers of `/usr` for a machine of this image, uppermost first.
pub(super) fn layers(disk: &Path) -> Result<String, MachineError> {
    let below = disk.join(LAYERS);
    let below = fs::read_to_string(&below).map_err(DirectoryError::of("read", &below))?;
    Ok(format!("{}:{}", disk.join(UPPER).display(), below.trim()))
}

/// Copies a file or a folder into a folder, with its modes, owners, links and attributes.
fn copy(from: &Path, into: &Path) -> Result<(), MachineError> {
    let failed = |source| MachineError::System(format!("copy `{}`", from.display()), source);
    let mut command = Command::new("cp");
    let status = command.args(["-a", "--reflink=auto"]).arg(from).arg(into).status();
    let status = status.map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(std::io::Error::other(status.to_string()))) }
}
