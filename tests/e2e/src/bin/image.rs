//! `make image`: Packer's template is checked and built for real, a failed and an interrupted build leave nothing, and a fleet
//! boots from the image that was made.
#![expect(clippy::print_stderr, reason = "what it says of its progress is its purpose")]

use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessExit;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use e2e::World;
use e2e::image::builds::Builds;
use e2e::image::fleet;
use e2e::image::tool::Packer;
use e2e::image::tree::Tree;
use e2e::programs::{Output, Programs};
use e2e::suite::{Suite, remains};
use e2e::torture::account::Account;
use lab::gear::{KubernetesGear, NodesGear};
use serde_json::{Value, json};

/// An id of the right form, for what asks nobody.
const ANY_IMAGE: &str = "ami-0123456789abcdef0";
/// Where EKS says which image a build starts from.
const SOURCE: &str =
    "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/nvidia/recommended/image_id";

/// Images, from the template to a node that has joined.
#[derive(Debug, Parser)]
#[command(name = "image", version)]
struct Cli {
    /// The folder that tests/lab/parts/packer.sh prints
    #[arg(long)]
    packer: PathBuf,
    /// Build the image alone: no failures, no fleet
    #[arg(long)]
    build_only: bool,
}

fn main() -> ProcessExit {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("could not start the runtime").and_then(|rt| rt.block_on(run(&cli))) {
        Ok(()) => ProcessExit::SUCCESS,
        Err(error) => {
            eprintln!("image: FAILED: {error:#}");
            ProcessExit::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let programs = Programs::of_this_build()?;
    let dir = programs.root.join("target/image");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)
            .with_context(|| format!("could not empty `{}`", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("could not make `{}`", dir.display()))?;
    let packer = Packer { dir: cli.packer.clone(), root: programs.root.clone(), env: Vec::new() };
    let variables = variables(&programs, &dir).await?;
    checked(&packer, &programs, &dir, &variables).await?;
    if let Err(why) = lab::gear::choose(KubernetesGear::Real, NodesGear::Machine) {
        ensure!(std::env::var("REQUIRE").as_deref() != Ok("1"), "{why}");
        eprintln!("image: the template was checked; nothing was built: {why}");
        return Ok(());
    }
    let lab = dir.join("lab");
    let before = remains::of_lab(&lab);
    let world =
        World::up(&lab, &["--kubernetes", "real", "--nodes", "machine", "--speed", "0.005"])
            .await?;
    let suite = Suite::on(world, &dir, false)?;
    let told = tokio::select! {
        told = tell(&suite, packer, variables, cli.build_only) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let ended = suite.world.down().await;
    told.and(ended)?;
    let mut left = remains::of_lab(&lab);
    left.retain(|thing| !before.contains(thing));
    ensure!(left.is_empty(), "the lab has left behind: {left:#?}");
    Ok(())
}

/// What a build of this agent is told.
async fn variables(programs: &Programs, dir: &Path) -> anyhow::Result<Value> {
    let tarball = programs.bin.join("rollcall-agent.tar.gz");
    let bytes = std::fs::read(&tarball)
        .with_context(|| format!("could not read `{}`: make build", tarball.display()))?;
    let said = programs
        .run("rollcall-agent", &["--version"], Output::Captured, std::time::Duration::from_secs(10))
        .await?;
    let version = said
        .stdout
        .trim()
        .strip_prefix("rollcall-agent ")
        .context("an agent without a version")?
        .to_owned();
    Ok(json!({
        "region": "us-east-1",
        "source_ami": ANY_IMAGE,
        "image_name": "rollcall-any",
        "architecture": "x86_64",
        "kubernetes_version": "1.34",
        "driver_branch": "580",
        "instance_type": "m7i.large",
        "agent_tarball": tarball,
        "agent_version": version,
        "agent_sha256": lab::instances::install::sha256(&bytes),
        "polling_seconds": 1,
        "manifest_path": dir.join("any.json"),
    }))
}

/// What can be known of the template without AWS.
async fn checked(
    packer: &Packer,
    programs: &Programs,
    dir: &Path,
    variables: &Value,
) -> anyhow::Result<()> {
    let (code, said) = packer.offline(&["fmt", "-check", "-diff", "packer"]).await?;
    ensure!(code == 0, "packer fmt would write the template otherwise:\n{said}");
    let any = dir.join("any.pkrvars.json");
    std::fs::write(&any, variables.to_string()).context("could not write variables")?;
    let any = format!("-var-file={}", any.display());
    valid(packer, &any, &[]).await?;
    for (variable, words) in [
        ("instance_type=p5.48xlarge", "never built on an instance with an accelerator"),
        ("instance_type=g6.xlarge", "never built on an instance with an accelerator"),
        ("instance_type=trn1.2xlarge", "never built on an instance with an accelerator"),
        ("ssh_source_cidrs=[\"0.0.0.0/0\"]", "never open to the world"),
        ("ssh_source_cidrs=[\"10.0.0.0/8\",\"::/0\"]", "never open to the world"),
        ("ssh_source_cidrs=[]", "open the build instance to the world"),
        ("source_ami=latest", "given by its id"),
        ("agent_sha256=ab", "64 hexadecimal digits"),
        ("architecture=sparc", "x86_64 or arm64"),
    ] {
        let (code, said) = packer.offline(&["validate", &any, "-var", variable, "packer"]).await?;
        let squeezed: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            code != 0 && squeezed.contains(words),
            "`{variable}` is not refused with `{words}`: {said}"
        );
    }
    let definitions = definitions(&programs.root)?;
    for definition in &definitions {
        let path = definition.display().to_string();
        let rendered = programs
            .run(
                "control",
                &["ami", "vars", &path, "--source-ami", ANY_IMAGE, "--region", "us-east-1"],
                Output::Captured,
                std::time::Duration::from_secs(20),
            )
            .await?
            .expect(contract::ExitCode::Success)
            .with_context(|| format!("`{path}` cannot be rendered"))?;
        let file = dir.join("definition.pkrvars.json");
        std::fs::write(&file, rendered.stdout).context("could not write variables")?;
        valid(packer, &format!("-var-file={}", file.display()), &[]).await.with_context(|| path)?;
    }
    eprintln!("image: packer fmt and validate: the template and {} definitions", definitions.len());
    Ok(())
}

async fn valid(packer: &Packer, file: &str, more: &[&str]) -> anyhow::Result<()> {
    let mut arguments = vec!["validate", file];
    arguments.extend(more);
    arguments.push("packer");
    let (code, said) = packer.offline(&arguments).await?;
    ensure!(code == 0, "packer validate refuses it:\n{said}");
    Ok(())
}

/// The image definitions of the repository.
fn definitions(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = root.join("amis");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("could not read `{}`", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    found.sort();
    Ok(found)
}

async fn tell(
    suite: &Suite,
    packer: Packer,
    mut variables: Value,
    build_only: bool,
) -> anyhow::Result<()> {
    let endpoint = suite.emulator.endpoint().to_owned();
    let parameter = suite.emulator.ssm("GetParameter", &json!({"Name": SOURCE})).await?;
    variables["source_ami"] = parameter["Parameter"]["Value"].clone();
    variables["endpoint_ec2"] = json!(endpoint);
    let builds = Builds {
        packer: Packer { env: suite.world.programs.env.clone(), ..packer },
        account: Account::at(&endpoint),
        emulator: suite.emulator.clone(),
        dir: suite.dir.clone(),
        variables,
    };
    let made = builds.good("rollcall-image").await?;
    eprintln!(
        "image: {} was built in {:.1} s; it has its tags, and nothing else is left",
        made.image,
        made.took.as_secs_f64()
    );
    let disk = suite.world.dir.join("machines/disks").join(&made.image);
    let list = std::fs::read_to_string(builds.packer.root.join("amis/files"))
        .context("could not read amis/files")?;
    let problems = Tree::at(&disk).problems(&list)?;
    if !problems.is_empty() {
        bail!("the image's disk:\n  {}", problems.join("\n  "));
    }
    kept(&disk, &suite.dir.join("disk"))?;
    eprintln!(
        "image: every file is as amis/files has it, nothing forbidden is on the disk; a copy is in target/image/disk"
    );
    if build_only {
        return Ok(());
    }
    // The scripts meet what they have done before, and must do no harm.
    let again = builds.of(json!(made.image)).good("rollcall-again").await?;
    eprintln!("image: {} was built from it in {:.1} s", again.image, again.took.as_secs_f64());
    builds.failing().await?;
    eprintln!(
        "image: a failing provisioner leaves no instance, no security group, no key, no image"
    );
    builds.interrupted().await?;
    eprintln!("image: an interrupt leaves none of these either");
    let began = Instant::now();
    let up = fleet::joins(suite, &made.image).await?;
    eprintln!(
        "image: a fleet of it was up in {:.0} s, each node proven and joined by itself; down again after {:.0} s",
        up.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Keeps a copy of the disk beside the manifests, whole or not at all: the lab goes.
fn kept(disk: &Path, to: &Path) -> anyhow::Result<()> {
    let unfinished = to.with_extension("new");
    let status = std::process::Command::new("cp").arg("-a").arg(disk).arg(&unfinished).status();
    let copied = status.with_context(|| format!("could not copy `{}`", disk.display()))?;
    ensure!(copied.success(), "could not copy `{}`", disk.display());
    std::fs::rename(&unfinished, to).with_context(|| format!("could not make `{}`", to.display()))
}
