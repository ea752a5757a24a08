//! The command line's types, and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes an EKS node from power-on to a proven, Ready GPU worker, and says why when it cannot.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Directory that stands before every path that is read, written, loaded or executed.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prove this node phase by phase, let kubelet start, and stay until it is Ready.
    Join(Join),
    /// Watch the GPUs and serve their metrics.
    Watch(Watch),
    /// Look at every gate at once, now, and name one cause; changes nothing.
    Diagnose(Diagnose),
    /// Show how the join stands.
    Status(Status),
    /// Say what a reason means and what to do about it; without one, list all.
    Explain(Explain),
    /// Say what is wrong with an image before it boots: `--root` is where it is mounted.
    CheckImage(CheckImage),
    /// List the points at which `join --die-at` can be made to die, one a line.
    #[command(hide = true)]
    CrashPoints,
    /// Reset the GPU that the watch asks for, if its unit may and nothing uses it.
    #[command(hide = true)]
    ResetGpu,
    /// Have each GPU compute a little through CUDA, and write down what came of it.
    #[command(hide = true)]
    Canary,
    /// Ask the driver's library, for a parent that can abandon us.
    #[command(hide = true)]
    ProbeGpus(ProbeGpus),
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Die of SIGKILL at this point of the first proving of a boot.
    #[arg(long, value_name = "POINT", hide = true)]
    pub(crate) die_at: Option<agent::pipeline::points::Point>,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Address and port of the metrics; `:9400` is every address.
    #[arg(long, value_name = "ADDR:PORT", default_value = ":9400", value_parser = listen)]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct Diagnose {
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// How long the look may take at most.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Answer as a custom plugin of node-problem-detector: one line, and 0, 1 or 2.
    #[arg(long, conflicts_with = "output")]
    pub(crate) npd: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: the document itself.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CheckImage {
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Name of a reason, `DriverLibraryMismatch`.
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeGpus {
    /// Ask again every so many seconds instead of once.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) follow: Option<Duration>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    text.parse().map_err(|_| "write it as ADDR:PORT or :PORT".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("write more than 0".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["rollcall-agent", "watch", "--root", "/node"]);
        assert_eq!(cli.root, PathBuf::from("/node"));
        let Command::Watch(watch) = cli.command else { panic!() };
        assert_eq!(watch.listen.port(), contract::names::METRICS_PORT);
        assert!(watch.listen.ip().is_unspecified());
    }

    #[test]
    fn a_look_has_a_limit() {
        let cli = Cli::parse_from(["rollcall-agent", "diagnose"]);
        let Command::Diagnose(args) = cli.command else { panic!() };
        assert_eq!(args.timeout, agent::diagnose::PATIENCE);
        assert!(Cli::try_parse_from(["rollcall-agent", "diagnose", "--npd", "-ojson"]).is_err());
    }

    #[test]
    fn addresses_and_seconds_are_checked() {
        assert_eq!(listen("127.64.0.1:9400"), Ok("127.64.0.1:9400".parse().unwrap()));
        assert!(listen("9400").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("x").is_err());
    }
}
