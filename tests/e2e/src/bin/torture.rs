//! `make torture`: `control` killed after each call that changes something, and each such call's
//! answer lost, on the way up and on the way down.
#![expect(clippy::print_stderr, reason = "what it says of its progress is its purpose")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use e2e::programs::Programs;
use e2e::torture::calls::{Call, sample};
use e2e::torture::lives::{Life, Stage};
use e2e::torture::{Blow, Summary, Tally, Target};

/// Reads of each way that are struck.
const READS: usize = 50;

/// `control` killed after each of its calls, and the answers of its calls lost.
#[derive(Debug, Parser)]
#[command(name = "torture", version)]
struct Cli {
    /// Strike so many calls alone, chosen by the seed
    #[arg(long)]
    sample: Option<usize>,
    /// What chooses the sample, and the reads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Strike only calls whose name has this in it
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("could not start the runtime").and_then(|rt| rt.block_on(run(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let dir = Programs::of_this_build()?.root.join("target/torture");
    let mut stage = Stage::set(&dir).await?;
    let mut summary = Summary::default();
    summary.told.insert("seed".into(), cli.seed.into());
    summary.told.insert("gear".into(), "API server stand-in, process nodes, agent's double".into());
    let path = dir.join("summary.json");
    let began = Instant::now();
    let mut lives = plan(cli, &stage, &mut summary);
    let count = lives.len();
    eprintln!("torture: {count} lives");
    lives.reverse();
    while let Some((up, down)) = lives.pop() {
        let lived = stage.live(up.as_ref(), down.as_ref()).await;
        let number = count - lives.len();
        let seconds = began.elapsed().as_secs();
        let names = [&up, &down]
            .map(|t| t.as_ref().map_or(String::new(), |t| format!("{:?} {}", t.0, t.1)));
        let failure = lived.as_ref().err().map(|error| format!("{error:#}"));
        for (target, is_up) in [(&up, true), (&down, false)] {
            let Some(target) = target else { continue };
            count_in(&mut summary, target, is_up, lived.as_ref().ok());
        }
        let mark = match (&failure, &lived) {
            (Some(_), _) => "✗",
            (None, Ok(Life::Missed)) => "·",
            (None, _) => "✓",
        };
        eprintln!("torture: {mark} {number}/{count} {seconds:>4} s  {}", names.join(" | "));
        if let Some(failure) = failure {
            eprintln!("{failure}");
            summary.failures.push(failure);
            if let Err(left) = stage.bury().await {
                eprintln!("torture: what cannot be removed: {left:#}");
                summary.leftovers += 1;
                summary.failures.push(format!("leftovers: {left:#}"));
                stage.world.down().await?;
                stage = Stage::set(&dir).await?;
            }
        }
        summary.write(&path)?;
    }
    stage.world.down().await?;
    summary.write(&path)?;
    let failures = summary.failures.len();
    ensure!(failures == 0, "{failures} lives did not converge: see `{}`", path.display());
    eprintln!("torture: all {count} lives converged in {} s", began.elapsed().as_secs());
    Ok(())
}

fn count_in(summary: &mut Summary, target: &Target, is_up: bool, lived: Option<&Life>) {
    let tally = tally_of(summary, &target.1, is_up);
    if lived == Some(&Life::Missed) {
        return;
    }
    match target.0 {
        Blow::Kill => tally.killed += 1,
        Blow::LoseAnswer => tally.answer_lost += 1,
    }
    tally.converged += usize::from(lived.is_some());
}

fn tally_of<'a>(summary: &'a mut Summary, call: &Call, is_up: bool) -> &'a mut Tally {
    match (call.is_read(), is_up) {
        (true, _) => &mut summary.reads,
        (false, true) => &mut summary.up,
        (false, false) => &mut summary.down,
    }
}

/// Which blows are struck in which life.
fn plan(cli: &Cli, stage: &Stage, summary: &mut Summary) -> Vec<(Option<Target>, Option<Target>)> {
    let [up, down] = [(&stage.up_calls, true), (&stage.down_calls, false)].map(|(calls, is_up)| {
        let (reads, changing): (Vec<Call>, Vec<Call>) =
            calls.iter().cloned().partition(Call::is_read);
        tally_of(summary, &changing[0], is_up).calls = changing.len();
        summary.reads.calls += reads.len();
        let blows = |call: &Call| [Blow::Kill, Blow::LoseAnswer].map(|blow| (blow, call.clone()));
        let mut targets: Vec<Target> = changing.iter().flat_map(blows).collect();
        if cli.sample.is_none() {
            let reads = sample(&reads, READS / 2, cli.seed);
            targets.extend(reads.into_iter().map(|call| (Blow::Kill, call)));
        }
        if let Some(only) = &cli.only {
            targets.retain(|target| target.1.to_string().contains(only));
        }
        match cli.sample {
            Some(count) => sample(&targets, count.div_ceil(2), cli.seed),
            None => targets,
        }
    });
    let (mut up, mut down) = (up.into_iter(), down.into_iter());
    std::iter::from_fn(|| match (up.next(), down.next()) {
        (None, None) => None,
        both => Some(both),
    })
    .collect()
}
