//! Where the log goes: journald, with fields, under systemd; standard error elsewhere.

use std::path::Path;

use agent::host::Root;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// journald's socket.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Starts logging. `RUST_LOG` sets what is logged; `info` when it says nothing.
pub(crate) fn start(root: &Root) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match journal(root) {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).init(),
    }
}

/// journald, when our standard error leads there anyway: then fields arrive as fields.
fn journal(root: &Root) -> Option<tracing_journald::Layer> {
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    if !(is_journal && root.is_host() && Path::new(JOURNAL).exists()) {
        return None;
    }
    // Without a prefix the fields are called ROLLCALL_REASON and ROLLCALL_PHASE.
    tracing_journald::layer().ok().map(|layer| layer.with_field_prefix(None))
}
