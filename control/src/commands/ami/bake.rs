//! `control ami bake`: one definition becomes one image, proven to be what was asked for; or nothing is
//! left of the attempt.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use contract::ExitCode;
use contract::names::TAG_IMAGE_VERIFIED;
use serde::Serialize;
use serde_json::Value;

use crate::ami::bake::{self, Order};
use crate::ami::definition::{self, Definition};
use crate::ami::image::Image;
use crate::ami::leftovers::{self, STAMP};
use crate::ami::packer_log::Said;
use crate::ami::variables::{self, Build, Variables};
use crate::ami::{catalogue, evidence};
use crate::aws::{Attempted as _, Clients, ec2};
use crate::cli::AmiBake;
use crate::commands::ami::{named, now};
use crate::commands::{Context, atomic, session};
use crate::failure::Stated;
use crate::launch::image;
use crate::output::{Printer, Style};
use crate::stack::Interrupt;

/// What is kept of a build, beside its definition: `built/<name>.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image: String,
    name: String,
    region: String,
    made: String,
    seconds: u64,
    definition: Definition,
    source: String,
    agent: String,
    agent_sha256: String,
    /// What the image says of itself: kernel, driver trees, packages.
    manifest: Value,
}

/// Runs the verb.
///
/// # Errors
/// The definition's problems, a build that failed, or an image that is not what was asked for.
pub async fn run(args: &AmiBake, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let printer = context.printer;
    let definition = definition::load(&args.definition)?;
    let artifact = session::artifact(args.agent_tarball.as_deref()).await?;
    let tarball =
        std::path::absolute(&artifact.path).context("could not find the tarball's path")?;
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let source = source(&clients, &definition).await?;
    let stamp = jiff::Timestamp::now().strftime(STAMP).to_string();
    let work = Work::open(&definition.name, &stamp)?;
    let asked = variables::of(
        &definition,
        &Build {
            region: &clients.region,
            source: &source.id,
            tarball: &tarball,
            sha256: &artifact.sha256,
            agent: args.agent_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION")),
            manifest: &work.manifest(),
            stamp: &stamp,
        },
    );
    let order = order(args, &asked, &work)?;
    let style = printer.note_style();
    printer.note(begun(&definition, &source, &asked, style));
    let began = Instant::now();
    let interrupt = Interrupt::listen().context("could not listen for signals")?;
    let built = bake::run(&order, &interrupt, |said| tell(said, began, printer)).await;
    swept(&clients, &asked.image_name, built.is_err(), printer).await?;
    let id = built?;
    let manifest = prove(&clients, &asked, &id, &work).await?;
    let record = Record {
        image: id,
        name: asked.image_name,
        region: asked.region,
        made: now(),
        seconds: began.elapsed().as_secs(),
        definition,
        source: source.id,
        agent: asked.agent_version,
        agent_sha256: asked.agent_sha256,
        manifest,
    };
    let path = keep(args, &record)?;
    printer.data(args.output.output, &record, |record, style| ended(record, &path, style))?;
    Ok(ExitCode::Success)
}

/// The source image, and whether the image can be made from it, on what the definition names.
async fn source(clients: &Clients, definition: &Definition) -> anyhow::Result<Image> {
    let refuse = |message: String| Stated::new(ExitCode::PreflightBlocked, message);
    let kind = &definition.build_instance_type;
    let types = ec2::instance_types(clients, std::slice::from_ref(kind)).await?;
    if let Some(facts) = types.get(kind) {
        if facts.gpus.is_some() {
            let why = "the driver in the image would be frozen to their family";
            return Err(refuse(format!("`{kind}` has GPUs: {why}")).into());
        }
        if facts.architecture != definition.architecture {
            let (is, wanted) = (&facts.architecture, &definition.architecture);
            return Err(refuse(format!("`{kind}` is {is}, and the image {wanted}")).into());
        }
    }
    let id = image::resolve(clients, &definition.parameter).await?;
    let found = catalogue::named(clients, [id.clone()]).await?.remove(&id);
    let source = found.ok_or_else(|| {
        refuse(format!("`{}` names `{id}`, and there is no such image", definition.parameter))
    })?;
    if source.architecture != definition.architecture {
        let (is, wanted) = (&source.architecture, &definition.architecture);
        return Err(refuse(format!("the source `{id}` is {is}, and the image {wanted}")).into());
    }
    if source.gib > definition.volume_gib {
        let (has, wanted) = (source.gib, definition.volume_gib);
        let message = format!("the source `{id}` takes {has} GiB, and `volumeGiB` is {wanted}");
        return Err(refuse(message).into());
    }
    Ok(source)
}

fn order(args: &AmiBake, asked: &Variables, work: &Work) -> anyhow::Result<Order> {
    let ours = work.directory.join("variables.pkrvars.json");
    atomic::replace(&ours, &serde_json::to_string_pretty(asked)?)
        .with_context(|| format!("could not write `{}`", ours.display()))?;
    // The definition's outrank the place's: what is baked is what the file says.
    let mut var_files = args.var_file.clone();
    var_files.push(ours);
    Ok(Order {
        packer: args.packer.clone(),
        template: args.template.clone(),
        var_files,
        vars: args.var.clone(),
        longest: args.timeout,
    })
}

/// Removes what the build has left, and says so.
async fn swept(
    clients: &Clients,
    build: &str,
    failed: bool,
    printer: &Printer,
) -> anyhow::Result<()> {
    let left = leftovers::look(clients, build, failed).await?;
    let ids = left.ids();
    if ids.is_empty() {
        return Ok(());
    }
    printer.note(format!("the build left {}: removing them", ids.join(", ")));
    let removed = leftovers::remove(clients, &left).await;
    let hint = format!("later: control ami prune; they carry the tag of the build `{build}`");
    removed.with_context(|| {
        Stated::new(ExitCode::LeftoversRemain, "what the build left could not all be removed")
            .with_hint(hint)
    })
}

/// Holds what the image says of itself, and its tags, against what was asked for; then says so on it.
async fn prove(
    clients: &Clients,
    asked: &Variables,
    id: &str,
    work: &Work,
) -> anyhow::Result<Value> {
    let path = work.image_manifest();
    let left = |what: String| {
        let hint = format!("`{id}` is left unverified, and no channel takes it: control ami list");
        Stated::new(ExitCode::Error, what).with_hint(hint)
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| left("the build brought no manifest of the image".to_owned()))?;
    let manifest: Value = serde_json::from_str(&text)
        .with_context(|| left("the image's manifest is no JSON".to_owned()))?;
    let read = serde_json::from_value(manifest.clone());
    let read = read.with_context(|| left("the image's manifest has another form".to_owned()))?;
    let image = named(clients, id).await?;
    let differences = evidence::differences(asked, &read, &image);
    if !differences.is_empty() {
        let message = format!("`{id}` is not what was asked for: {}", differences.join("; "));
        return Err(left(message).into());
    }
    let tags = [(TAG_IMAGE_VERIFIED.to_owned(), now())].into();
    let call = clients.ec2.create_tags().resources(id).set_tags(Some(ec2::tags(&tags)));
    call.send().await.attempted(|| format!("say on `{id}` that it was verified"))?;
    Ok(manifest)
}

/// Keeps the record; where.
fn keep(args: &AmiBake, record: &Record) -> anyhow::Result<PathBuf> {
    let beside = || args.definition.parent().unwrap_or(Path::new("")).join("built");
    let directory = args.record.clone().unwrap_or_else(beside);
    let path = directory.join(format!("{}.json", record.name));
    let text = serde_json::to_string_pretty(record)? + "\n";
    std::fs::create_dir_all(&directory)
        .and_then(|()| atomic::replace(&path, &text))
        .with_context(|| format!("could not keep the record `{}`", path.display()))?;
    Ok(path)
}

/// Packer's files, in a directory that goes with us.
struct Work {
    directory: PathBuf,
}

impl Work {
    fn open(name: &str, stamp: &str) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let own = format!("rollcall-{name}-{stamp}-{}", std::process::id());
        let directory = std::env::temp_dir().join(own);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("could not make `{}`", directory.display()))?;
        Ok(Self { directory })
    }

    /// Packer's own manifest.
    fn manifest(&self) -> PathBuf {
        self.directory.join("packer.json")
    }

    /// The image's, which the template puts beside it.
    fn image_manifest(&self) -> PathBuf {
        self.directory.join("packer-image.json")
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // In the system's place for such files: what cannot be removed now goes by itself.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn begun(definition: &Definition, source: &Image, asked: &Variables, style: Style) -> String {
    let sha256 = asked.agent_sha256.get(..12).unwrap_or_default();
    format!(
        "{}\n  from     {} {}\n  on       {}\n  agent    {} {}",
        style.bold(&definition.name),
        style.cyan(&source.id),
        style.dim(&source.name),
        definition.build_instance_type,
        asked.agent_version,
        style.dim(sha256),
    )
}

/// A line of Packer's: steps stand out, what they say stands below them.
fn tell(said: &Said, began: Instant, printer: &Printer) {
    let style = printer.note_style();
    let at = style.dim(format!("{:6.1} s", began.elapsed().as_secs_f64()));
    let lines = |text: &str, paint: &dyn Fn(&str) -> String| {
        for line in text.lines() {
            printer.note(format!("{at}  {}", paint(line)));
        }
    };
    match said {
        Said::Step(text) => lines(text, &|line| line.to_owned()),
        Said::Detail(text) => lines(text, &|line| style.dim(format!("  {line}"))),
        Said::Error(text) => lines(text, &|line| style.red(line)),
        Said::Made { .. } | Said::Nothing => {}
    }
}

fn ended(record: &Record, path: &Path, style: Style) -> String {
    format!(
        "{} {} is verified, {} s\n  record   {}\n  next     {}",
        style.green("✓"),
        style.cyan(&record.image),
        record.seconds,
        path.display(),
        style.cyan(format!("control ami promote CHANNEL {}", record.image)),
    )
}
