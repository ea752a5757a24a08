//! `lab corpus`: plays the fault corpus in a lab of its own.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context as _;
use contract::ExitCode;

use crate::cli::{CorpusArgs, CorpusCommand, CorpusRun, Lines, Place, Up};
use crate::corpus::case::Case;
use crate::corpus::stage::{self, Stage};
use crate::corpus::{Corpus, Line, run};
use crate::output;

pub(super) async fn run(arguments: CorpusArgs) -> anyhow::Result<ExitCode> {
    match arguments.command {
        CorpusCommand::List => {
            let corpus = Corpus::read(&arguments.corpus)?;
            for case in &corpus.cases {
                let reason = case.reason.map_or("healthy", |named| named.0.name());
                output::data(&format!("{:<34} {reason:<32} {}\n", case.case, case.about));
            }
            Ok(ExitCode::Success)
        }
        CorpusCommand::Run(options) => {
            let corpus = Corpus::read(&arguments.corpus)?;
            let chosen = match corpus.chosen(&options.cases) {
                Ok(chosen) => chosen,
                Err(why) => {
                    output::progress(&format!("error: {why}"));
                    return Ok(ExitCode::Usage);
                }
            };
            let sampled = |case: &&Case| !options.sample || case.sample;
            let cases = chosen.into_iter().filter(sampled).cloned().collect();
            play(&arguments.corpus.join("fleet.yaml"), options, cases).await
        }
    }
}

async fn play(
    fleet: &std::path::Path,
    options: CorpusRun,
    cases: Vec<Case>,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let fleet = fleet.canonicalize().context("there is no fleet for the corpus")?;
    let tarball = match &options.baked_agent {
        Some(path) => path.clone(),
        None => stage::beside("rollcall-agent.tar.gz")?,
    };
    let place = Place { dir: options.dir.clone() };
    let up = Up {
        place: Place { dir: options.dir.clone() },
        speed: 0.005,
        kubernetes: options.kubernetes,
        nodes: options.nodes,
        python: options.python.clone(),
        baked_agent: Some(tarball),
    };
    let (directory, record) = super::up::start(up).await?;
    let nodes = record.options.nodes;
    output::progress(&format!("corpus: {} cases, building the fleet", cases.len()));
    let stage = match Stage::set(directory, record, &fleet).await {
        Ok(stage) => stage,
        Err(error) => {
            end(&place).await.ok();
            return Err(error);
        }
    };
    let (skipped, cases): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| run::skipped(case, nodes).is_some());
    for case in &skipped {
        let why = run::skipped(case, nodes).unwrap_or_default();
        output::progress(&format!("corpus: {} is skipped: {why}", case.case));
    }
    let mut lines: Vec<Line> = Vec::new();
    let show = options.output;
    if show == Lines::Table {
        output::data(&format!(
            "{:<7} {:<34} {:<32} {:>7}  CHANNELS\n",
            "", "CASE", "REASON", "SECONDS"
        ));
    }
    run::all(stage, cases, options.jobs, |line| {
        output::data(&match show {
            Lines::Jsonl => serde_json::to_string(line).unwrap_or_default() + "\n",
            Lines::Table => row(line),
        });
        lines.push(line.clone());
    })
    .await;
    output::progress(&summary(&lines, skipped.len(), started.elapsed().as_secs()));
    if options.keep {
        output::progress(&format!("corpus: the lab stays up in {}", options.dir.display()));
    } else {
        end(&place).await?;
    }
    let passed = lines.iter().all(|line| line.passed);
    Ok(if passed { ExitCode::Success } else { ExitCode::Error })
}

/// Ends the lab without a word on stdout, which is for the lines.
async fn end(place: &Place) -> anyhow::Result<()> {
    super::down::end(place).await.map(drop)
}

fn row(line: &Line) -> String {
    let word = if line.passed { "ok" } else { "FAILED" };
    let reason = line.reason.as_deref().unwrap_or("healthy");
    let channels: Vec<String> =
        line.channels.iter().map(|channel| format!("{channel:?}").to_lowercase()).collect();
    let mut text = format!(
        "{word:<7} {:<34} {reason:<32} {:>7.1}  {}\n",
        line.case,
        line.seconds,
        channels.join(" ")
    );
    if let Some(why) = &line.why {
        text += &format!("        {why}\n");
    }
    text
}

fn summary(lines: &[Line], skipped: usize, seconds: u64) -> String {
    let passed = lines.iter().filter(|line| line.passed);
    let reasons: BTreeSet<&String> = passed.clone().filter_map(|l| l.reason.as_ref()).collect();
    let healthy = passed.clone().filter(|line| line.reason.is_none()).count();
    let failed = lines.len() - passed.count();
    format!(
        "corpus: {} cases in {seconds} s: {} reasons and {healthy} healthy variants as expected, \
         {failed} failed, {skipped} skipped",
        lines.len(),
        reasons.len()
    )
}
