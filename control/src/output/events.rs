//! What `-o jsonl` writes on stdout: one JSON object a line, as things happen. The first line says the
//! version, the last how it ended. `docs/events.schema.json` describes every line; `v` counts up its
//! minor part with additions, its major part when something that is there changes.

use serde::Serialize;
use serde_json::Value;

use crate::config::problem::Problem;
use crate::stack::{Action, Layer};

/// Version of the lines.
pub const VERSION: &str = "1.0";
/// The published schema of the lines.
pub const SCHEMA: &str = include_str!("../../../docs/events.schema.json");

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// The first line.
    Version {
        /// Version of the lines.
        v: &'static str,
        /// This program.
        tool: &'static str,
        /// Its version.
        version: &'static str,
        /// The verb.
        verb: &'static str,
    },
    /// A change that `plan` has found.
    Change {
        /// In which layer.
        layer: Layer,
        /// What is done.
        action: Action,
        /// To what kind of thing.
        resource: &'a str,
        /// Its name.
        name: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A layer begins, or another part of the walk.
    PartStart {
        /// Which.
        part: &'a str,
    },
    /// A step has ended.
    Step {
        /// Of which part.
        part: &'a str,
        /// What kind of thing it is about.
        resource: &'a str,
        /// Its name.
        name: &'a str,
        /// Whether it went through.
        ok: bool,
    },
    /// A layer's steps are done; its gate is asked.
    Gate {
        /// Which layer's.
        part: &'a str,
        /// What it proves.
        proves: &'a str,
    },
    /// A node has come on, or has its verdict.
    Node {
        /// `pool/index`.
        at: &'a str,
        /// Instance id.
        instance: &'a str,
        /// `joining`, `ready`, `degraded` or `failed`.
        state: &'static str,
        /// The reason, where one keeps it out.
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
        /// Where it is on its way, or why it is not.
        text: &'a str,
    },
    /// A part has ended.
    PartEnd {
        /// Which.
        part: &'a str,
        /// `ok`, `degraded` or `failed`.
        state: &'static str,
        /// What was done and proven.
        text: &'a str,
        /// How long it took.
        seconds: f64,
    },
    /// What the verb says: the document of `-o json`.
    Report {
        /// The verb.
        verb: &'static str,
        /// The document.
        data: Value,
    },
    /// The last line.
    Result {
        /// The exit code.
        exit: u8,
        /// What went wrong, its sources with it.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// The fleet file's mistakes.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        problems: &'a [Problem],
    },
}

/// A line with its time.
#[derive(Debug, Serialize)]
struct Line<'a> {
    ts: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Writes the line.
pub fn emit(event: &Event<'_>) {
    use std::io::Write as _;
    let ts = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    if let Ok(text) = serde_json::to_string(&Line { ts, event }) {
        // A reader that has gone (`| head`) is no error of ours.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}
