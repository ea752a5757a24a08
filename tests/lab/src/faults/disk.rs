//! Directories of a node that become file systems of their own: one without room, one that hangs.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where file systems in user space are served.
pub(super) const FUSE: &str = "/dev/fuse";

/// Mounts a file system with next to no room.
pub(super) fn fill(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("size=64k,nr_inodes=8"))?)
}

/// Mounts a file system in user space whose program never says a word, not even the first.
pub(super) fn hang(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let device = fs::OpenOptions::new().read(true).write(true).open(FUSE)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("hung"), directory, Some("fuse"), flags, Some(options.as_str()))?;
    // As long as this is open, and so as long as this process lives, everybody waits.
    let _kept_open = device.into_raw_fd();
    Ok(())
}

/// Takes either away. Who waits is let go with an error, and the next one finds the directory.
pub(super) fn unmount(directory: &Path) -> io::Result<()> {
    Ok(umount2(directory, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)?)
}
