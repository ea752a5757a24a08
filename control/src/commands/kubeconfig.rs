//! `control kubeconfig`: kubectl's way to the cluster, with `control token` in place of the AWS CLI.
//!
//! The file is locked as kubectl locks it, and replaced whole: a crash leaves the old one or the new
//! one, and a file that cannot be read stays as it is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::{ExitCode, StepOutcome};

use crate::aws::Clients;
use crate::aws::eks::{self, ClusterFacts};
use crate::cli::KubeconfigArgs;
use crate::commands::atomic::replace;
use crate::commands::{Context, fleet};
use crate::failure::Stated;
use crate::kube::kubeconfig::{Exec, KubeconfigError, Merged, merge, without};

/// How long another writer may hold the lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the verb.
///
/// # Errors
/// When there is no cluster, or the file cannot be read or written.
pub async fn run(args: &KubeconfigArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let facts = facts_of_fleet(&found.clients, found.required()?).await?;
    if args.kubeconfig.as_deref() == Some(Path::new("-")) {
        context.printer.line(merged("", &facts)?.text.trim_end());
        return Ok(ExitCode::Success);
    }
    let path = path_of(args.kubeconfig.as_deref())?;
    let (merged, _) = write(&facts, &path)?;
    let did = if merged.changed { "wrote" } else { "nothing to change for" };
    context.printer.note(format!(
        "{did} context `{}` in `{}`; kubectl gets its tokens from this program",
        merged.context,
        path.display()
    ));
    Ok(ExitCode::Success)
}

/// Puts a fleet's entries into the kubeconfig.
///
/// # Errors
/// When the file cannot be read or written.
pub fn install(facts: &ClusterFacts, path: Option<&Path>) -> anyhow::Result<StepOutcome> {
    Ok(write(facts, &path_of(path)?)?.1)
}

/// Takes a fleet's entries out of the kubeconfig; a file without them is not touched.
///
/// # Errors
/// When the file cannot be read or written.
pub fn remove(region: &str, cluster: &str, path: Option<&Path>) -> anyhow::Result<StepOutcome> {
    // Without HOME there is no file that anything could have been written into.
    let Ok(path) = path_of(path) else { return Ok(StepOutcome::Unchanged) };
    if !path.exists() {
        return Ok(StepOutcome::Unchanged);
    }
    edit(&path, |existing| Ok(without(existing, region, cluster)?.map(|text| (text, ()))))
        .map(|done| if done.is_some() { StepOutcome::Done } else { StepOutcome::Unchanged })
}

/// The facts of a fleet's cluster, or a sentence that says that there is none yet.
pub(super) async fn facts_of_fleet(clients: &Clients, fleet: &str) -> anyhow::Result<ClusterFacts> {
    eks::cluster_facts(clients, fleet).await?.ok_or_else(|| {
        Stated::new(ExitCode::Error, format!("fleet `{fleet}` has no cluster that answers yet"))
            .with_hint("control up -f <fleet file> builds it; control status shows how far it is")
            .into()
    })
}

fn write(facts: &ClusterFacts, path: &Path) -> anyhow::Result<(Merged, StepOutcome)> {
    let mut unchanged = None;
    let done = edit(path, |existing| {
        let merged = merged(existing, facts)?;
        if !merged.changed {
            unchanged = Some(merged);
            return Ok(None);
        }
        Ok(Some((merged.text.clone(), merged)))
    })?;
    match (done, unchanged) {
        (Some(merged), _) => Ok((merged, StepOutcome::Done)),
        (None, Some(merged)) => Ok((merged, StepOutcome::Unchanged)),
        (None, None) => anyhow::bail!("could not write `{}`", path.display()),
    }
}

fn merged(existing: &str, facts: &ClusterFacts) -> Result<Merged, anyhow::Error> {
    let program = std::env::current_exe().context("could not find this program's own path")?;
    let profile = std::env::var("AWS_PROFILE").ok().filter(|profile| !profile.is_empty());
    Ok(merge(existing, facts, Exec { program: &program, profile: profile.as_deref() })?)
}

/// The file that is meant: the flag's, else the first of `$KUBECONFIG`, else `~/.kube/config`.
fn path_of(flag: Option<&Path>) -> anyhow::Result<PathBuf> {
    pick_path(flag, std::env::var_os("KUBECONFIG").as_deref(), std::env::var_os("HOME").as_deref())
        .ok_or_else(|| {
            Stated::new(ExitCode::Usage, "neither KUBECONFIG nor HOME says where the kubeconfig is")
                .with_hint("name it: --kubeconfig FILE")
                .into()
        })
}

fn pick_path(
    flag: Option<&Path>,
    variable: Option<&OsStr>,
    home: Option<&OsStr>,
) -> Option<PathBuf> {
    flag.map(Path::to_owned)
        .or_else(|| std::env::split_paths(variable?).find(|path| !path.as_os_str().is_empty()))
        .or_else(|| home.map(|home| Path::new(home).join(".kube/config")))
}

/// Reads the file, and replaces it by what `change` makes of it; None of it: left alone.
fn edit<T>(
    path: &Path,
    change: impl FnOnce(&str) -> anyhow::Result<Option<(String, T)>>,
) -> anyhow::Result<Option<T>> {
    // Through a link, so that a linked file is replaced where it lies.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.display().to_string();
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)
        .with_context(|| format!("could not make `{}`", directory.display()))?;
    let _lock = Lock::take(&path)?;
    let existing = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(format!("could not read `{name}`")),
    };
    let changed = change(&existing).map_err(|error| match error.downcast_ref() {
        Some(KubeconfigError::Unreadable(_) | KubeconfigError::Broken(_)) => error.context(
            Stated::new(ExitCode::Error, format!("left `{name}` as it is"))
                .with_hint("correct the file, or name another one with --kubeconfig FILE"),
        ),
        _ => error,
    })?;
    let Some((text, result)) = changed else { return Ok(None) };
    replace(&path, &text).with_context(|| format!("could not write `{name}`"))?;
    Ok(Some(result))
}

/// kubectl's own lock: a file beside the kubeconfig that exists while somebody writes.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let lock = path.with_file_name(name);
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context(format!("could not lock `{}`", path.display()));
                }
                Err(_) if Instant::now() >= deadline => {
                    let held = format!("`{}` is being written by another program", path.display());
                    let hint = format!("if none is running: rm {}", lock.display());
                    return Err(Stated::new(ExitCode::Error, held).with_hint(hint).into());
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Somebody who has removed it already has done our work.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_flag_outranks_the_variable_and_that_the_home() {
        let flag = Path::new("/a");
        let variable = OsStr::new(":/b:/c");
        let home = OsStr::new("/home/me");
        for (flag, variable, expected) in [
            (Some(flag), Some(variable), "/a"),
            (None, Some(variable), "/b"),
            (None, Some(OsStr::new("")), "/home/me/.kube/config"),
            (None, None, "/home/me/.kube/config"),
        ] {
            assert_eq!(pick_path(flag, variable, Some(home)), Some(expected.into()));
        }
        assert_eq!(pick_path(None, None, None), None);
    }

    #[test]
    fn a_broken_file_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, "clusters: [").unwrap();
        let error = remove("us-east-1", "prod", Some(&path)).unwrap_err();
        assert!(format!("{error:#}").contains("left `"), "{error:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "clusters: [");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no lock, no temp file");
    }

    #[test]
    fn a_file_keeps_its_permissions_and_a_new_one_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config");
        edit(&path, |_| Ok(Some(("kind: Config\n".into(), ())))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        edit(&path, |_| Ok(Some(("kind: Config\nclusters: []\n".into(), ())))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
