//! Where the driver's libraries are: NVML's and CUDA's.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::host::Root;

/// NVML's name.
pub const NAME: &str = "libnvidia-ml.so.1";
/// CUDA's, of which the canary has need.
pub const CUDA: &str = "libcuda.so.1";

/// Where libraries are, the image's own place first.
const DIRECTORIES: [&str; 6] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64/nvidia",
    "/lib64",
    "/usr/lib",
];

/// NVML's file, if it is in one of the usual places.
#[must_use]
pub fn find(root: &Root) -> Option<PathBuf> {
    find_named(root, NAME)
}

fn find_named(root: &Root, name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| root.path(directory).join(name)).find(|path| path.exists())
}

/// What to hand to the loader for NVML.
#[must_use]
pub fn to_load(root: &Root) -> Option<OsString> {
    to_load_of(root, NAME)
}

/// What to hand to the loader for one of the libraries: the file, or on a machine's own root the bare
/// name, which the loader's cache may know.
#[must_use]
pub fn to_load_of(root: &Root, name: &str) -> Option<OsString> {
    match find_named(root, name) {
        Some(path) => Some(path.into_os_string()),
        None if root.is_host() => Some(name.into()),
        None => None,
    }
}

/// The version in the name of the file behind the library's link, `libnvidia-ml.so.580.95.05`.
#[must_use]
pub fn version(root: &Root) -> Option<String> {
    let target = find(root)?.canonicalize().ok()?;
    let version = target.file_name()?.to_str()?.strip_prefix("libnvidia-ml.so.")?;
    version.contains('.').then(|| version.to_owned())
}

/// The places that are searched, as evidence names them.
#[must_use]
pub fn searched() -> Vec<String> {
    DIRECTORIES.iter().map(|directory| format!("{directory}/{NAME}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_first_place_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(to_load(&root), None, "never the machine's own library for another root");
        let debian = root.path("/usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&debian).unwrap();
        fs::write(debian.join("libnvidia-ml.so.580.95.05"), "").unwrap();
        symlink("libnvidia-ml.so.580.95.05", debian.join(NAME)).unwrap();
        assert_eq!(find(&root), Some(debian.join(NAME)));
        assert_eq!(version(&root).as_deref(), Some("580.95.05"));

        fs::create_dir_all(root.path("/usr/lib64")).unwrap();
        fs::write(root.path("/usr/lib64").join(NAME), "").unwrap();
        assert_eq!(find(&root), Some(root.path("/usr/lib64").join(NAME)));
        assert_eq!(version(&root), None, "its name does not tell");
    }
}
