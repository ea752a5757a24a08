//! One running lab, and `control` pointed at it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use contract::ExitCode;

use crate::programs::{Finished, Output, Programs};

/// The longest a lab may take to come up.
const UP: Duration = Duration::from_secs(60);
/// The longest a lab may take to go.
const DOWN: Duration = Duration::from_secs(30);

/// A lab of our own, and the environment that `source DIR/env` gives.
#[derive(Debug)]
pub struct World {
    /// The lab's folder.
    pub dir: PathBuf,
    /// The programs, with the lab's environment.
    pub programs: Programs,
}

impl World {
    /// Brings a lab up in `dir`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn up(dir: &Path, extra: &[&str]) -> anyhow::Result<Self> {
        let mut world = Self { dir: dir.to_owned(), programs: Programs::of_this_build()? };
        // `make` says which Python has the emulator; without it, the one that `make setup` makes.
        let python = world.programs.root.join("target/venv/bin/python");
        if std::env::var_os("LAB_PYTHON").is_none() && python.exists() {
            world.programs.env.push(("LAB_PYTHON".into(), python.display().to_string()));
        }
        let at = world.dir_argument()?;
        let mut args = vec!["up", "--dir", &at];
        args.extend(extra);
        let up = world.programs.run("lab", &args, Output::Captured, UP).await?;
        up.expect(ExitCode::Success).context("the lab did not come up")?;
        world.adopt()?;
        Ok(world)
    }

    /// Takes over the environment of a lab that is up.
    ///
    /// # Errors
    /// When its `env` file cannot be read.
    pub fn adopt(&mut self) -> anyhow::Result<()> {
        let path = self.dir.join("env");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("could not read `{}`", path.display()))?;
        self.programs.env = parse_env(&text);
        Ok(())
    }

    fn dir_argument(&self) -> anyhow::Result<String> {
        Ok(self.dir.to_str().context("the lab's folder is not UTF-8")?.to_owned())
    }

    /// Runs `control`, capturing what it says.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub async fn control(&self, args: &[&str]) -> anyhow::Result<Finished> {
        self.programs.run("control", args, Output::Captured, Duration::from_secs(180)).await
    }

    /// Runs `lab VERB --dir DIR ARGS`.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub async fn lab(&self, verb: &str, args: &[&str]) -> anyhow::Result<Finished> {
        let at = self.dir_argument()?;
        let mut all = vec![verb, "--dir", &at];
        all.extend(args);
        self.programs.run("lab", &all, Output::Captured, DOWN).await
    }

    /// What `lab status` knows.
    ///
    /// # Errors
    /// When the lab does not answer.
    pub async fn lab_status(&self) -> anyhow::Result<serde_json::Value> {
        self.lab("status", &["-o", "json"]).await?.expect(ExitCode::Success)?.json()
    }

    /// What `control status` knows.
    ///
    /// # Errors
    /// When it answers no JSON.
    pub async fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.control(&["status", "-o", "json"]).await?.json()
    }

    /// Ends the lab and checks that it says so.
    ///
    /// # Errors
    /// When something of it is left.
    pub async fn down(&self) -> anyhow::Result<()> {
        self.lab("down", &[]).await?.expect(ExitCode::Success).context("the lab did not end")?;
        Ok(())
    }
}

/// Reads `export KEY='value'` lines, as the lab writes them for a shell.
fn parse_env(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_read_as_a_shell_would() {
        let text = "# the lab\nexport AWS_REGION=us-east-1\nexport AWS_ENDPOINT_URL='http://x:1'\n";
        let env = parse_env(text);
        assert_eq!(env[0], ("AWS_REGION".into(), "us-east-1".into()));
        assert_eq!(env[1].1, "http://x:1");
    }
}
