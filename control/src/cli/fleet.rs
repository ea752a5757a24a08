//! Which fleet a verb is about.

use std::path::PathBuf;

use clap::Args;

/// Which fleet, for verbs that need no fleet file.
#[derive(Clone, Debug, Default, Args)]
pub struct FleetArgs {
    /// Fleet file; `-` reads stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "fleet")]
    pub file: Option<PathBuf>,
    /// Name of the fleet; without it the only one that exists in the region.
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,
}

/// The fleet file, and what is laid over it.
#[derive(Clone, Debug, Default, Args)]
pub struct FileArgs {
    /// Fleet file; `-` reads stdin. Further ones are laid over the first: fields replace fields, pools
    /// of a name are joined.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Set one value over all files: `network.zones=3`, `pools.h100.size.desired=8`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

impl FileArgs {
    /// How the file is called in messages.
    #[must_use]
    pub fn named(&self) -> String {
        let files = self.files.iter().map(|file| file.display().to_string());
        files.collect::<Vec<_>>().join(" + ")
    }

    /// The same arguments as somebody types them again.
    #[must_use]
    pub fn again(&self) -> String {
        let files = self.files.iter().map(|file| format!("-f {}", file.display()));
        let sets = self.sets.iter().map(|set| format!("--set '{set}'"));
        files.chain(sets).collect::<Vec<_>>().join(" ")
    }
}
