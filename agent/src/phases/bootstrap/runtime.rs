//! containerd's configuration, as nodeadm and the NodeConfig's TOML over it have made it: can
//! containers start with it, and do those of GPU pods get GPUs?

use std::path::Path;

use toml::{Table, Value};

use crate::host::program::{self, Program};
use crate::host::{Root, files};

/// Where nodeadm writes it.
const CONFIG: &str = "/etc/containerd/config.toml";

/// The plugin that holds the runtimes: of containerd 2 and of containerd 1.
const PLUGINS: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];

/// The runtime that containerd has without being told.
const BUILT_IN: &str = "runc";

/// What is wrong with containerd's configuration; `None` when nothing is, or it cannot be said.
#[must_use]
pub(super) fn problem(root: &Root, wants_gpus: bool) -> Option<String> {
    // nodeadm always writes it; where it is not, containerd works with what it has built in.
    let text = files::read_text(&root.path(CONFIG)).ok()?;
    judge(&text, wants_gpus, |binary| match Path::new(binary).is_absolute() {
        true => program::look(&root.path(binary)),
        false => program::search(root, binary),
    })
}

/// The same of a text; `look` tells whether a runtime's program can be executed.
fn judge(text: &str, wants_gpus: bool, look: impl Fn(&str) -> Program) -> Option<String> {
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return Some(format!("`{CONFIG}` is no TOML: {}", first_line(&error))),
    };
    let is_whole = table.get("imports").and_then(Value::as_array).is_none_or(Vec::is_empty);
    let plugins = table.get("plugins")?;
    let plugin = PLUGINS.iter().find_map(|name| plugins.get(name)?.as_table())?;
    let containerd = plugin.get("containerd")?;
    let runtimes = containerd.get("runtimes").and_then(Value::as_table);
    let name = containerd.get("default_runtime_name").and_then(Value::as_str).unwrap_or(BUILT_IN);
    let binary = |runtime: &Value| {
        let binary = runtime.get("options")?.get("BinaryName")?.as_str()?;
        (!binary.is_empty()).then(|| binary.to_owned())
    };
    match runtimes.and_then(|runtimes| runtimes.get(name)) {
        None if is_whole && name != BUILT_IN => {
            return Some(format!(
                "`{CONFIG}` has `{name}` as its default runtime, and no such one"
            ));
        }
        Some(runtime) => {
            if let Some(binary) = binary(runtime)
                && let Some(why) = unusable(&look(&binary))
            {
                return Some(format!(
                    "the default runtime `{name}` in `{CONFIG}` is `{binary}`: {why}"
                ));
            }
        }
        None => {}
    }
    let gives_gpus = plugin.get("enable_cdi").and_then(Value::as_bool).unwrap_or_default()
        || runtimes
            .into_iter()
            .flatten()
            .any(|(_, runtime)| binary(runtime).is_some_and(|binary| binary.contains("nvidia")));
    (wants_gpus && is_whole && !gives_gpus).then(|| {
        format!("none of the runtimes in `{CONFIG}` gives containers GPUs, and CDI is off")
    })
}

fn unusable(program: &Program) -> Option<String> {
    match program {
        Program::Usable => None,
        Program::Missing => Some("there is no such program".into()),
        Program::Unusable(why) => Some(why.clone()),
    }
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(default: &str, binary: &str, cdi: bool) -> String {
        format!(
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = {cdi}\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = '{default}'\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]\n\
             BinaryName = '{binary}'\n"
        )
    }

    #[test]
    fn only_what_cannot_work_is_wrong() {
        let look = |binary: &str| match binary {
            "/gone" => Program::Missing,
            "/plain" => Program::Unusable("its mode is 0644".into()),
            _ => Program::Usable,
        };
        let nvidia = "/usr/bin/nvidia-container-runtime";
        let old = config("nvidia", "/gone", true)
            .replace("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri");
        for (text, expected) in [
            (config("nvidia", nvidia, false), None),
            (config("runc", "/usr/sbin/runc", true), None),
            (config("runc", "/usr/sbin/runc", false), Some("gives containers GPUs")),
            (config("kata", nvidia, true), Some("`kata` as its default runtime")),
            (format!("imports = ['/x']\n{}", config("kata", "/usr/sbin/runc", false)), None),
            (config("nvidia", "/gone", true), Some("`/gone`: there is no such program")),
            (config("nvidia", "/plain", true), Some("mode is 0644")),
            (old, Some("`/gone`")),
            ("[plugins".into(), Some("no TOML")),
            ("version = 3\n".into(), None),
        ] {
            let problem = judge(&text, true, look);
            match expected {
                None => assert_eq!(problem, None, "{text}"),
                Some(says) => {
                    assert!(problem.as_ref().is_some_and(|p| p.contains(says)), "{problem:?}")
                }
            }
        }
        assert_eq!(judge(&config("runc", "/usr/sbin/runc", false), false, look), None);
    }
}
