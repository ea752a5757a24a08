//! How much room a file system has left.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that root can still write.
    pub bytes: u64,
    /// Files that can still be made; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// The room where `path` is, or will be made; `None` when nobody says.
#[must_use]
pub fn at(path: &Path) -> Option<Space> {
    let fs = path.ancestors().find_map(|path| statvfs(path).ok())?;
    Some(Space {
        // Reserved blocks count: everything that writes here runs as root.
        bytes: fs.blocks_free() * fs.fragment_size(),
        files: (fs.files() > 0).then(|| fs.files_free()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_made_yet_has_its_parents_room() {
        let dir = tempfile::tempdir().unwrap();
        let here = at(dir.path()).unwrap();
        assert!(here.bytes > 0);
        assert!(at(&dir.path().join("not/made/yet")).is_some());
    }
}
