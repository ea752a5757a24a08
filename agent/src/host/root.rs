//! The directory that stands before every path the agent reads, writes, loads or executes.

use std::path::{Path, PathBuf};

/// The node's root directory: `/` on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// A root at `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Where the absolute path `absolute` is found: `/proc/uptime` below the root.
    #[must_use]
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path as the node itself names it: without the root that stands before it.
    #[must_use]
    pub fn seen_from_inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.0)
            .map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest))
    }

    /// The directory itself.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether this is the machine's own root.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.0 == Path::new("/")
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_before_absolute_and_relative_paths() {
        let root = Root::new("/srv/node");
        assert_eq!(root.path("/proc/uptime"), Path::new("/srv/node/proc/uptime"));
        assert_eq!(root.path("run"), Path::new("/srv/node/run"));
        assert_eq!(Root::default().path("/proc/uptime"), Path::new("/proc/uptime"));
        assert_eq!(root.seen_from_inside(&root.path("/proc/uptime")), Path::new("/proc/uptime"));
        assert_eq!(root.seen_from_inside(Path::new("libx.so.1")), Path::new("libx.so.1"));
        assert!(Root::default().is_host() && !root.is_host());
    }
}
