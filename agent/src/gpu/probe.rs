//! The helper process, from both ends: the child that asks NVML, and the parent that may give it
//! up. A driver that hangs holds the child; the parent kills it, or leaves it alone where it cannot
//! die, and goes on.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nvml_wrapper::Nvml;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout_at;

use super::nvml::{self, Listener, Sampler};
use super::sample::{Driver, Failure, GpuSample, Line};
use crate::host::{Deadline, Root};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "probe-gpus";
/// How long a killed helper is waited for: one that hangs in the kernel does not die.
const GRACE: Duration = Duration::from_secs(1);

/// The child's end: one round, or one every `follow` until the parent is gone.
#[must_use]
pub fn helper_main(root: &Root, follow: Option<Duration>) -> ExitCode {
    let asked = hear_parent();
    match ask(root, follow, &asked, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads any more.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Hears the parent: a byte asks for a round now. Its end ends this process, whatever the driver does
/// with the main thread.
fn hear_parent() -> Receiver<()> {
    let (ask, asked) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {
            // Nobody listens any more where the helper is about to end.
            let _ = ask.send(());
        }
        // Not `exit`: the library's own handlers could hang in the driver.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    });
    asked
}

fn ask(
    root: &Root,
    follow: Option<Duration>,
    asked: &Receiver<()>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    loop {
        say(out, &Line::Asking { what: "nvmlInit".into() })?;
        let (nvml, driver) = match nvml::open(root) {
            Ok(opened) => opened,
            Err(failure) => return say(out, &Line::Failed(failure)),
        };
        if !rounds(&nvml, driver, follow, asked, out)? {
            return Ok(());
        }
        say(out, &Line::Asking { what: "nvmlShutdown".into() })?;
    }
}

/// Rounds, until the library has to be opened anew; false when no more are wanted. A GPU that is lost, or is
/// reset, comes back for those alone who initialise after it has.
fn rounds(
    nvml: &Nvml,
    mut driver: Driver,
    follow: Option<Duration>,
    asked: &Receiver<()>,
    out: &mut impl io::Write,
) -> io::Result<bool> {
    let mut sampler = Sampler::new(nvml);
    let mut listener = Listener::new(nvml);
    loop {
        say(out, &Line::Opened(driver.clone()))?;
        let mut answering = Vec::new();
        for index in 0..driver.count {
            say(out, &Line::Asking { what: format!("GPU {index}") })?;
            let sample = sampler.sample(index);
            if sample.error.is_none() {
                answering.push((index, sample.pci.clone()));
            }
            say(out, &Line::Gpu(Box::new(sample)))?;
        }
        say(out, &Line::End)?;
        let Some(interval) = follow else { return Ok(false) };
        let is_whole = answering.len() == driver.count as usize;
        let to_events = listener.listen_to(answering);
        say(out, &Line::Listening { to_events })?;
        pause(interval, &mut listener, asked, out)?;
        if !is_whole {
            return Ok(true);
        }
        say(out, &Line::Asking { what: "nvmlDeviceGetCount_v2".into() })?;
        // A count that cannot be had ends the helper: the next one opens the library anew.
        driver.count = nvml.device_count().map_err(io::Error::other)?;
    }
}

/// Waits for the next round, and says which XIDs NVML tells of meanwhile.
fn pause(
    interval: Duration,
    listener: &mut Listener<'_>,
    asked: &Receiver<()>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let end = Instant::now() + interval;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // The parent is heard at least once a second.
        let is_asked = if listener.is_listening() {
            let slice = left.min(Duration::from_secs(1));
            if let Some((pci, code)) = listener.wait(slice) {
                say(out, &Line::Xid { pci, code })?;
            }
            asked.try_recv().is_ok()
        } else {
            !matches!(asked.recv_timeout(left), Err(RecvTimeoutError::Timeout))
        };
        if is_asked {
            return Ok(());
        }
    }
}

fn say(out: &mut impl io::Write, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// What NVML says, or why it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct NvmlFacts {
    /// The library and its driver, once they answered.
    pub driver: Option<Driver>,
    /// The GPUs that were come to, in order.
    pub gpus: Vec<GpuSample>,
    /// How the asking ended.
    pub outcome: Outcome,
}

/// How the asking ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every GPU was asked.
    Complete,
    /// Nobody asked, and why.
    NotAsked(&'static str),
    /// The driver cannot be asked.
    Failed(Failure),
    /// A call did not come back.
    Hung {
        /// Which.
        asking: String,
        /// How long the helper had.
        after: Duration,
    },
    /// The helper itself failed: it could not be started, or died.
    HelperFailed(String),
}

impl NvmlFacts {
    /// No facts, and why.
    #[must_use]
    pub const fn none(outcome: Outcome) -> Self {
        Self { driver: None, gpus: Vec::new(), outcome }
    }
}

/// Gathers the lines of one round.
#[derive(Debug, Default)]
pub struct Round {
    asking: String,
    driver: Option<Driver>,
    gpus: Vec<GpuSample>,
}

impl Round {
    /// Takes a line; a complete round, or its failure, comes out of its last one.
    pub fn take(&mut self, line: Line) -> Option<NvmlFacts> {
        match line {
            Line::Asking { what } => self.asking = what,
            Line::Opened(driver) => {
                self.driver = Some(driver);
                self.gpus.clear();
            }
            Line::Gpu(gpu) => self.gpus.push(*gpu),
            Line::End => return Some(self.end(Outcome::Complete)),
            Line::Failed(failure) => return Some(self.end(Outcome::Failed(failure))),
            // They belong to no round.
            Line::Listening { .. } | Line::Xid { .. } => {}
        }
        None
    }

    /// What is known when no further line comes.
    pub fn end(&mut self, outcome: Outcome) -> NvmlFacts {
        NvmlFacts { driver: self.driver.clone(), gpus: std::mem::take(&mut self.gpus), outcome }
    }

    /// What the helper does now.
    #[must_use]
    pub fn asking(&self) -> &str {
        if self.asking.is_empty() { "starting the helper" } else { &self.asking }
    }

    /// The GPUs that have answered in this round so far.
    #[must_use]
    pub fn gpus(&self) -> &[GpuSample] {
        &self.gpus
    }
}

/// How the helper is started.
#[derive(Clone, Debug)]
pub struct Helper {
    program: PathBuf,
}

impl Default for Helper {
    /// This same program, even when its file has been replaced since it was started.
    fn default() -> Self {
        Self { program: "/proc/self/exe".into() }
    }
}

impl Helper {
    /// Another program with the same subcommand.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Asks NVML once. Never later than the deadline, by more than the grace for a helper that is
    /// killed.
    pub async fn snapshot(&self, root: &Root, deadline: Deadline) -> NvmlFacts {
        let start = Instant::now();
        let mut running = match self.start(root, None) {
            Ok(running) => running,
            Err(error) => return NvmlFacts::none(Outcome::HelperFailed(error.to_string())),
        };
        let mut round = Round::default();
        loop {
            match timeout_at(deadline.instant(), running.next_line()).await {
                Ok(Ok(Some(line))) => {
                    if let Some(facts) = round.take(line) {
                        running.stop().await;
                        return facts;
                    }
                }
                Ok(ended) => {
                    let died = running.why_ended(ended.err()).await;
                    let asking = round.asking().to_owned();
                    let text = format!("it {died} while asking for {asking}");
                    return round.end(Outcome::HelperFailed(text));
                }
                Err(_) => {
                    running.stop().await;
                    let asking = round.asking().to_owned();
                    return round.end(Outcome::Hung { asking, after: start.elapsed() });
                }
            }
        }
    }

    /// Starts a helper; with `follow`, one that does a round every so often.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self, root: &Root, follow: Option<Duration>) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command.arg0("rollcall-agent").arg(SUBCOMMAND).arg("--root").arg(root.as_path());
        if let Some(interval) = follow {
            command.arg("--follow").arg(format!("{}", interval.as_secs_f64()));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("the helper has no pipes");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        Ok(Running { child, stdin, lines: BufReader::new(stdout).lines() })
    }
}

/// A helper that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// A byte asks the helper for a round now; its closing tells it that we are gone.
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line; `None` when the helper has ended.
    ///
    /// # Errors
    /// The pipe broke, or what came is no line of ours.
    pub async fn next_line(&mut self) -> io::Result<Option<Line>> {
        match self.lines.next_line().await? {
            Some(text) => Ok(Some(serde_json::from_str(&text)?)),
            None => Ok(None),
        }
    }

    /// Asks for a round now. A helper that is in one hears it afterwards.
    pub async fn ask_now(&mut self) {
        // It fails only for a helper that has ended, which its lines say.
        let _ = self.stdin.write_all(b"\n").await;
    }

    /// Kills the helper; it is left alone when it does not die at once. Whether it died.
    pub async fn stop(&mut self) -> bool {
        // It fails only for a helper that has already ended.
        let _ = self.child.start_kill();
        let died = tokio::time::timeout(GRACE, self.child.wait()).await.is_ok();
        if !died {
            tracing::warn!(pid = self.child.id(), "a GPU helper hangs in the kernel: left alone");
        }
        died
    }

    /// Whether a helper that was killed is gone by now.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, in words.
    pub async fn why_ended(&mut self, error: Option<io::Error>) -> String {
        if let Some(error) = error {
            self.stop().await;
            return format!("said what nobody understands ({error})");
        }
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) => format!("ended with {status}"),
            Ok(Err(error)) => format!("could not be waited for ({error})"),
            Err(_) => {
                self.stop().await;
                "closed its output".to_owned()
            }
        }
    }
}

/// Asks NVML once through a helper of this program.
pub async fn snapshot(root: &Root, deadline: Deadline) -> NvmlFacts {
    Helper::default().snapshot(root, deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32) -> Line {
        Line::Gpu(Box::new(GpuSample { index, ..GpuSample::default() }))
    }

    #[test]
    fn a_round_comes_out_of_its_last_line() {
        let mut round = Round::default();
        let driver = Driver { count: 2, ..Driver::default() };
        for line in [Line::Opened(driver.clone()), gpu(0), gpu(1)] {
            assert_eq!(round.take(line), None);
        }
        let facts = round.take(Line::End).unwrap();
        assert_eq!((facts.gpus.len(), facts.outcome), (2, Outcome::Complete));
        assert_eq!(facts.driver, Some(driver.clone()));

        // The next round of the same helper does not carry the last one's GPUs.
        assert_eq!(round.take(Line::Opened(driver)), None);
        assert_eq!(round.take(gpu(0)), None);
        assert_eq!(round.take(Line::End).unwrap().gpus.len(), 1);
    }

    #[test]
    fn a_hang_keeps_who_has_answered_and_names_who_has_not() {
        let mut round = Round::default();
        round.take(Line::Opened(Driver { count: 8, ..Driver::default() }));
        round.take(gpu(0));
        round.take(Line::Asking { what: "GPU 1".into() });
        assert_eq!(round.asking(), "GPU 1");
        assert_eq!(round.end(Outcome::NotAsked("test")).gpus.len(), 1);
    }

    #[tokio::test]
    async fn a_helper_that_cannot_be_started_is_no_hang() {
        let root = Root::new("/");
        let deadline = Deadline::within(Duration::from_secs(5));
        let facts = Helper::at("/no/such/program").snapshot(&root, deadline).await;
        assert!(matches!(facts.outcome, Outcome::HelperFailed(_)), "{facts:?}");
    }

    #[tokio::test]
    async fn a_helper_that_dies_is_told_from_one_that_hangs() {
        let root = Root::new("/");
        let deadline = Deadline::within(Duration::from_secs(20));
        let facts = Helper::at("/bin/false").snapshot(&root, deadline).await;
        let Outcome::HelperFailed(text) = facts.outcome else { panic!("{facts:?}") };
        assert!(text.contains("exit status: 1"), "{text}");
    }
}
