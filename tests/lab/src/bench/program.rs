//! The binary itself: its size, and the newest symbol of the C library that it asks for.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::summary::{Figure, Peer};

const MIB: f64 = 1024.0 * 1024.0;

/// The figures of the agent's binary beside nodeadm's, where that was built.
///
/// # Errors
/// When the binary or its symbols cannot be read.
pub fn figures(agent: &Path, nodeadm: Option<&Path>) -> anyhow::Result<Vec<Figure>> {
    let size = |path: &Path| -> anyhow::Result<f64> {
        let bytes = std::fs::metadata(path).with_context(|| format!("no {}", path.display()))?;
        Ok(bytes.len() as f64 / MIB)
    };
    let peer = nodeadm.map(size).transpose()?.map(|size| Peer::of("nodeadm", vec![size]));
    Ok(vec![
        Figure::of("binary", "MiB", vec![size(agent)?]).beside(peer).within(15.0),
        Figure::of("newest glibc symbol: 2.x", "", vec![newest(agent)?]).within(34.0),
    ])
}

/// The minor number of the newest `GLIBC_2.x` among the symbols that the binary asks for.
fn newest(agent: &Path) -> anyhow::Result<f64> {
    let output = Command::new("objdump").arg("-T").arg(agent).output();
    let output = output.context("could not run objdump: install binutils")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let minors = text.split("GLIBC_2.").skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    minors.max().map(f64::from).context("the agent's binary asks for nothing of glibc")
}

/// Peak memory of a program that is run once, in MiB, and how long it takes, in ms: of a child of a
/// Python, whose `getrusage` tells its children's alone.
///
/// # Errors
/// When it cannot be run, or ends with an error.
pub fn run_once(python: &Path, program: &Path, arguments: &[&str]) -> anyhow::Result<(f64, f64)> {
    const SCRIPT: &str = "import resource,subprocess,sys,time\n\
        began=time.monotonic()\n\
        code=subprocess.run(sys.argv[1:],stdin=subprocess.DEVNULL,stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL).returncode\n\
        took=time.monotonic()-began\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024,took*1000)\n\
        sys.exit(code)";
    let output = Command::new(python).args(["-c", SCRIPT]).arg(program).args(arguments).output()?;
    if !output.status.success() {
        anyhow::bail!(
            "`{} {}` ended with {}",
            program.display(),
            arguments.join(" "),
            output.status
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    let pair = numbers.next().zip(numbers.next());
    pair.with_context(|| format!("no figures in `{}`", text.trim()))
}
