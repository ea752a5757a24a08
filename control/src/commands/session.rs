//! What `plan`, `up` and `down` need before they begin: the file, the clients, the world.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use contract::ExitCode;
use jiff::Timestamp;

use crate::aws::{Clients, partition};
use crate::cli::FileArgs;
use crate::commands::Context;
use crate::config::spec::AgentSource;
use crate::config::{self, FleetSpec};
use crate::failure::Stated;
use crate::layers::identity::artifact::Artifact;
use crate::output::progress::Progress;
use crate::stack::{Given, Inputs, Interrupt, Lease, Scope, World};

/// Name of the agent's tarball beside this program.
const TARBALL: &str = "rollcall-agent.tar.gz";

/// Opens the world for a fleet.
///
/// # Errors
/// When the credentials are refused, the region is unknown, or signals cannot be listened to.
pub(super) async fn world(
    clients: Clients,
    fleet: &str,
    progress: Progress,
) -> anyhow::Result<World> {
    let region = clients.region.clone();
    let partition = partition::of_region(&region).ok_or_else(|| {
        Stated::new(ExitCode::PreflightBlocked, format!("`{region}` is in no known AWS partition"))
            .with_hint("check the region's spelling: `aws ec2 describe-regions` lists them")
    })?;
    let caller = clients.caller().await?;
    Ok(World {
        scope: Scope { fleet: fleet.to_owned(), account: caller.account, region, partition },
        lease: Lease::on(&clients, fleet, &caller.arn),
        clients,
        pace: crate::aws::poll::Pace::default(),
        interrupt: Interrupt::listen().context("could not listen for signals")?,
        progress,
        evidence: evidence_home(),
        began: Timestamp::now(),
    })
}

/// Where what is known of replaced nodes is kept, unless the command line says so: the user's place
/// for state (XDG base directory specification), else the working directory.
fn evidence_home() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_default().join("rollcall/replaced")
}

/// Reads the fleet file; nothing else is touched before it is sound.
///
/// # Errors
/// Every problem of the file.
pub(super) fn spec(args: &FileArgs) -> anyhow::Result<FleetSpec> {
    Ok(config::load(&args.files, &args.sets)?)
}

/// Clients in the region of the command line, else of the fleet file, else of the environment.
///
/// # Errors
/// When no region or no credentials are found.
pub(super) async fn clients(spec: &FleetSpec, context: &Context<'_>) -> anyhow::Result<Clients> {
    let region = context.global.region.as_deref().or(spec.region.as_deref());
    Ok(Clients::load(region).await?)
}

/// Everything that a plan is made from.
///
/// # Errors
/// When the fleet publishes the agent and its tarball cannot be read.
pub(super) async fn inputs(
    world: &World,
    spec: FleetSpec,
    tarball: Option<&Path>,
) -> anyhow::Result<Inputs> {
    let artifact = match spec.agent {
        AgentSource::Published => Some(artifact(tarball).await?),
        AgentSource::Baked | AgentSource::Fetched { .. } => None,
    };
    Ok(Inputs { scope: world.scope.clone(), spec, artifact, given: Given::default() })
}

/// The agent's tarball: the one that is named, else the one beside this program.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn artifact(named: Option<&Path>) -> anyhow::Result<Artifact> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => beside_us()?,
    };
    Artifact::read(&path).await.with_context(|| {
        Stated::new(
            ExitCode::PreflightBlocked,
            format!("there is no tarball of the agent at `{}`", path.display()),
        )
        .with_hint("name the tarball with --agent-tarball, or put it beside `control`")
    })
}

fn beside_us() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("could not find this program's own path")?;
    Ok(me.with_file_name(TARBALL))
}

/// Refuses at once where nobody can be asked.
///
/// # Errors
/// Without `--yes` and without a terminal.
pub(super) fn must_be_able_to_ask(
    yes: bool,
    verb: &str,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    if yes || context.printer.is_interactive() {
        return Ok(());
    }
    Err(Stated::new(ExitCode::Usage, format!("`{verb}` asks first, and there is no terminal"))
        .with_hint(format!("say so beforehand: control {verb} --yes"))
        .into())
}
