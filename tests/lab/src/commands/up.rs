//! `lab up`: starts the supervisor and waits until everything serves.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contract::ExitCode;

use crate::cli::Up;
use crate::directory::LabDirectory;
use crate::gear::{self, Choice, GearError};
use crate::output;
use crate::processes::own_program;
use crate::supervisor::record::is_emulator;
use crate::supervisor::{Options, Phase, Record};

/// The longest a lab may take to come up.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn run(up: Up) -> anyhow::Result<ExitCode> {
    match start(up).await {
        Ok((directory, record)) => {
            output::data(&report(&directory, &record));
            Ok(ExitCode::Success)
        }
        Err(error) if error.is::<GearError>() => {
            output::progress(&format!("error: {error}"));
            Ok(ExitCode::Usage)
        }
        Err(error) => Err(error),
    }
}

/// Starts a lab; returns once everything serves.
pub(super) async fn start(up: Up) -> anyhow::Result<(LabDirectory, Record)> {
    let Choice { kubernetes, nodes, why } = gear::choose(up.kubernetes, up.nodes)?;
    if let Some(why) = why {
        output::progress(&format!("stand-ins where the real parts cannot run: {why}"));
    }
    let directory = LabDirectory::create(&up.place.dir)?;
    if let Some(record) = Record::of_live_lab(&directory) {
        bail!(
            "a lab is up in `{}` already (pid {}): look at it with lab status, or end it with lab down",
            up.place.dir.display(),
            record.supervisor.pid
        );
    }
    let options = Options {
        speed: up.speed,
        kubernetes,
        nodes,
        python: python(up.python, &directory)?,
        emulator: emulator()?,
        nvml: Some(nvml()?),
        baked_agent: up.baked_agent.map(|path| absolute(&path)).transpose()?,
    };
    // What a killed lab left running would take the new one's addresses.
    super::down::sweep(&directory).await;
    directory.clear()?;
    let mut child = spawn(&directory, &options)?;
    let record = wait(&directory, &mut child).await?;
    Ok((directory, record))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("could not open `{}`", path.display()))
}

fn python(asked: Option<PathBuf>, directory: &LabDirectory) -> anyhow::Result<PathBuf> {
    let named = asked.or_else(|| std::env::var_os("LAB_PYTHON").map(PathBuf::from));
    let beside = || directory.path().parent().map(|dir| dir.join("venv/bin/python"));
    let python = named.or_else(beside).unwrap_or_default();
    // Not canonicalised: a virtual environment's interpreter is a link, and is known by its place.
    if python.is_file() {
        return std::path::absolute(&python).context("could not resolve the interpreter's path");
    }
    bail!(
        "there is no Python for the emulator at `{}`: make setup makes one, --python or LAB_PYTHON names another",
        python.display()
    )
}

/// The emulator's package, beside this crate's sources unless `LAB_EMULATOR` names another place.
fn emulator() -> anyhow::Result<PathBuf> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
    let path = std::env::var_os("LAB_EMULATOR").map_or(built_from, PathBuf::from);
    if is_emulator(&path) {
        return Ok(path);
    }
    bail!("there is no emulator in `{}`: LAB_EMULATOR names another place", path.display())
}

/// The driver library, built beside this program.
fn nvml() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("could not find this program's own path")?;
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("libnvml_sim.so"))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no libnvml_sim.so beside `{}`: make build makes it", program.display())
    })
}

fn spawn(directory: &LabDirectory, options: &Options) -> anyhow::Result<Child> {
    let path = directory.log();
    let log =
        File::create(&path).with_context(|| format!("could not open `{}`", path.display()))?;
    Command::new(own_program())
        .arg("supervisor")
        .arg("--dir")
        .arg(directory.path())
        .arg("--options")
        .arg(serde_json::to_string(options)?)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("could not start the supervisor")
}

async fn wait(directory: &LabDirectory, child: &mut Child) -> anyhow::Result<Record> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        // Asked before the record is read: one that ends has written its record before.
        let ended = child.try_wait().context("could not watch the supervisor")?;
        match Record::read(directory) {
            Some(record) if record.phase == Phase::Serving => return Ok(record),
            // Not before it is gone: until then the directory is taken.
            Some(Record { phase: Phase::Failed, error: Some(error), .. })
                if ended.is_some() || Instant::now() >= deadline =>
            {
                bail!("{error}")
            }
            _ => {}
        }
        if let Some(status) = ended {
            bail!("the supervisor ended with {status}: see `{}`", directory.log().display());
        }
        if Instant::now() >= deadline {
            super::down::end_supervisor(directory).await;
            bail!(
                "the lab has not come up after {} s: see `{}`",
                DEADLINE.as_secs(),
                directory.log().display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What runs, what of it is real, and how to use it.
fn report(directory: &LabDirectory, record: &Record) -> String {
    let mut text = String::from("A lab is up. Its parts:\n");
    for (name, component) in record.components(0) {
        text.push_str(&format!("  {name:<11} {:<9} {}\n", component.kind, component.what));
    }
    text.push_str(&format!(
        "\n  AWS at {}, Kubernetes at {}, durations × {}\n\nTo use it:\n  source {}\n  control plan -f FLEET.yaml\n\n\
         To look at it: lab status --dir {dir}. To end it: lab down --dir {dir}.\n",
        record.endpoint,
        record.kubernetes,
        record.options.speed,
        directory.env().display(),
        dir = directory.path().display(),
    ));
    text
}
