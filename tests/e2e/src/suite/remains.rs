//! What a lab may leave behind on the machine that it ran on: nothing.

use std::path::Path;

/// Processes, mounts, namespaces, links and cgroups of a lab in `dir` that are still there.
#[must_use]
pub fn of_lab(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let mut left = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    left.extend(mounts.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount {l}")));
    for (place, kind) in [("/run/netns", "namespace"), ("/sys/class/net", "link")] {
        let names = names_in(Path::new(place)).into_iter();
        let ours = names.filter(|name| name.starts_with("rollcall-") || name.starts_with("rc-"));
        left.extend(ours.map(|name| format!("{kind} {name}")));
    }
    for hierarchy in names_in(Path::new("/sys/fs/cgroup")) {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join("rollcall-lab");
        left.extend(group.exists().then(|| format!("cgroup {}", group.display())));
    }
    for pid in names_in(Path::new("/proc")).into_iter().filter(|name| name.parse::<i32>().is_ok()) {
        let process = Path::new("/proc").join(&pid);
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let root = std::fs::read_link(process.join("root")).unwrap_or_default();
        // Of a lab's own programs, its directory is an argument or the root.
        let is_of_lab = command.contains(&dir) || root.starts_with(&dir);
        if is_of_lab && pid.parse() != Ok(std::process::id()) {
            left.push(format!("process {pid} {command}"));
        }
    }
    left
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
