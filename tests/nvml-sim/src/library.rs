//! The library's files on a node: where programs look for NVML and for CUDA, without the functions
//! that the state hides.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::state::State;

const DIRECTORY: &str = "usr/lib64";
/// The two libraries that the one file is, and the names that programs load each by.
const LIBRARIES: [(&str, &[&str]); 2] =
    [("libnvidia-ml.so", &["libnvidia-ml.so.1", "libnvidia-ml.so"]), (LIBCUDA, &["libcuda.so.1"])];
const LIBCUDA: &str = "libcuda.so";

/// Puts the library, built at `built`, below a node's root with the links to it, and removes one of
/// another version. A process that has the old file open keeps it, as after a driver's update.
///
/// # Errors
///
/// A file cannot be read or written, or a hidden function is none of the library's.
pub fn install(built: &Path, root: &Path, state: &State) -> io::Result<()> {
    let directory = root.join(DIRECTORY);
    fs::create_dir_all(&directory)?;
    let hidden = match state.hidden_symbols.as_slice() {
        [] => None,
        hidden => Some(without(fs::read(built)?, hidden)?),
    };
    for (library, links) in LIBRARIES {
        if library == LIBCUDA && state.without_cuda {
            continue;
        }
        let name = format!("{library}.{}", state.driver_version);
        replace(&directory.join(&name), |new| match &hidden {
            Some(bytes) => fs::write(new, bytes),
            None => fs::hard_link(built, new).or_else(|_| fs::copy(built, new).map(drop)),
        })?;
        for link in links {
            replace(&directory.join(link), |new| symlink(&name, new))?;
        }
    }
    remove(root, Some(state))
}

/// Takes the library off a node.
///
/// # Errors
///
/// A file cannot be removed.
pub fn uninstall(root: &Path) -> io::Result<()> {
    remove(root, None)
}

fn remove(root: &Path, keep: Option<&State>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(root.join(DIRECTORY)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let of = LIBRARIES.iter().find(|(library, _)| name.starts_with(library));
        let Some((library, links)) = of else { continue };
        let is_kept = |state: &State| {
            let version = &state.driver_version;
            let is_there = *library != LIBCUDA || !state.without_cuda;
            is_there && (name == format!("{library}.{version}") || links.contains(&name))
        };
        if !keep.is_some_and(is_kept) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_file_name(".nvml-sim.new");
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_file(&new))?;
    make(&new)?;
    fs::rename(&new, path)?;
    // Two names of one file are left as they are by a rename.
    gone(fs::remove_file(&new))
}

/// The library without some functions: their names are changed in its table of names, where the
/// loader's search by hash then meets another name and ends as for any name that is not there.
///
/// # Errors
///
/// A name is none of the library's.
pub fn without(mut library: Vec<u8>, functions: &[String]) -> io::Result<Vec<u8>> {
    let mut found = vec![Vec::new(); functions.len()];
    let mut start = 0;
    for (end, _) in library.iter().enumerate().filter(|(_, byte)| **byte == 0) {
        let name = &library[start..end];
        if [&b"nvml"[..], b"cu"].iter().any(|of| name.starts_with(of))
            && let Some(index) = functions.iter().position(|one| one.as_bytes() == name)
        {
            found[index].push(start);
        }
        start = end + 1;
    }
    for (function, places) in functions.iter().zip(found) {
        if places.is_empty() {
            let what = format!("the simulated library has no `{function}` to hide");
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        // `nvml…` becomes `Nvml…`, `cu…` becomes `Cu…`.
        places.into_iter().for_each(|place| library[place].make_ascii_uppercase());
    }
    Ok(library)
}

/// Functions that came with the driver branch of this number or with a later one: what an older
/// library lacks.
const SINCE: [(&str, u32); 12] = [
    ("nvmlGpmQueryDeviceSupport", 525),
    ("nvmlGpmMetricsGet", 525),
    ("nvmlGpmSampleAlloc", 525),
    ("nvmlGpmSampleGet", 525),
    ("nvmlGpmSampleFree", 525),
    ("nvmlGpmMigSampleGet", 525),
    ("nvmlDeviceGetGpuFabricInfo", 525),
    ("nvmlDeviceGetCurrentClocksEventReasons", 535),
    ("nvmlDeviceGetGpuFabricInfoV", 550),
    ("nvmlDeviceGetSramEccErrorStatus", 550),
    ("nvmlDeviceGetPlatformInfo", 565),
    ("nvmlDeviceGetTemperatureV", 570),
];

/// The functions that a library of this driver version does not have.
#[must_use]
pub fn absent_in(driver_version: &str) -> Vec<String> {
    let branch = branch(driver_version);
    let absent = SINCE.iter().filter(|(_, since)| branch < *since);
    absent.map(|(name, _)| (*name).to_owned()).collect()
}

/// The first driver branch that says what a GPU needs, in field 230.
const RECOVERY_ACTION: u32 = 570;

/// Whether a driver of this version says what a GPU needs.
pub(crate) fn knows_recovery_action(driver_version: &str) -> bool {
    branch(driver_version) >= RECOVERY_ACTION
}

/// CUDA versions, as NVML counts, by the first driver branch that has them.
const CUDA: [(u32, i32); 8] = [
    (0, 11_000),
    (470, 11_040),
    (525, 12_000),
    (535, 12_020),
    (550, 12_040),
    (565, 12_070),
    (570, 12_080),
    (580, 13_000),
];

/// The CUDA version of a driver.
#[must_use]
pub fn cuda_of(driver_version: &str) -> i32 {
    let branch = branch(driver_version);
    CUDA.iter().rev().find(|(since, _)| *since <= branch).map_or(0, |(_, cuda)| *cuda)
}

/// The branch of a driver, as its version begins; a newest one for what is no version.
pub(crate) fn branch(version: &str) -> u32 {
    version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_hidden() {
        let table = b"\0nvmlInit\0nvmlInit_v2\0xnvmlInit\0".to_vec();
        let hidden = without(table.clone(), &["nvmlInit".to_owned()]).unwrap();
        assert_eq!(hidden, b"\0NvmlInit\0nvmlInit_v2\0xnvmlInit\0");
        let error = without(table, &["nvmlNoSuch".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("nvmlNoSuch"), "{error}");
    }

    #[test]
    fn older_drivers_lack_more() {
        assert_eq!(absent_in("580.95.05"), [""; 0]);
        let absent = absent_in("535.261.03");
        assert!(absent.contains(&"nvmlDeviceGetGpuFabricInfoV".to_owned()));
        assert!(!absent.contains(&"nvmlDeviceGetGpuFabricInfo".to_owned()));
        assert!(absent_in("470.256.02").len() > absent.len());
        assert_eq!((cuda_of("550.163.01"), cuda_of("595.71.05")), (12_040, 13_000));
    }
}
