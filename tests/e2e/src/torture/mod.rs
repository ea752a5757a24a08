//! `control` killed after each call that changes something, and each such call's answer lost: what it
//! leaves is built on by the next `up`, and removed by the next `down`, as if nothing had happened.
//!
//! One undisturbed life of a fleet gives the calls and what the account holds in between; then one
//! life for each call of `up` and one for each of `down`, both in one where that can be ([`lives`]),
//! in a few labs side by side, for a life mostly waits ([`crew`]).
//! A call is known by what it does, to what, and how often that was done before ([`calls`]).

pub mod account;
pub mod calls;
pub mod crew;
pub mod lives;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use calls::Call;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL for `control`, once the call has taken effect and before it is answered.
    Kill,
    /// The call takes effect, and its connection is cut instead of an answer.
    LoseAnswer,
}

impl Blow {
    /// The fault rule's action.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Kill => "hold",
            Self::LoseAnswer => "reset_after",
        }
    }
}

/// One blow against one call.
pub type Target = (Blow, Call);

/// What was found of `up`, or of `down`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Calls that an undisturbed run makes.
    pub calls: usize,
    /// Runs that were killed right after one of them.
    pub killed: usize,
    /// Runs that one of their answers was lost to.
    pub answer_lost: usize,
    /// Runs that were followed by one that came to the same end.
    pub converged: usize,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Of `up`, its calls that change something.
    pub up: Tally,
    /// Of `down`, likewise.
    pub down: Tally,
    /// Of both, some of the calls that only read.
    pub reads: Tally,
    /// Things that were still in the account after a life.
    pub leftovers: usize,
    /// What did not converge, and how.
    pub failures: Vec<String>,
    /// Seeds and gear, so that it can be told again.
    pub told: BTreeMap<String, Value>,
}

impl Summary {
    /// Writes it where `make torture` says.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("no JSON of the summary")?;
        let fresh = path.with_extension("new");
        let what = || format!("could not write `{}`", path.display());
        std::fs::write(&fresh, text + "\n").with_context(what)?;
        std::fs::rename(&fresh, path).with_context(what)
    }
}
