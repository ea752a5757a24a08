//! What a layer is to the driver, and what a plan is made of.

use std::fmt::Debug;
use std::future::Future;

use contract::StepOutcome;
use serde::Serialize;

use crate::stack::{Gate, Given, Inputs, Layer, Scope, StackError, World};

/// What a step does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Makes it.
    Add,
    /// Changes it in place.
    Change,
    /// Makes another in its place.
    Replace,
    /// Removes it.
    Destroy,
}

impl Action {
    /// The mark in front of a row.
    #[must_use]
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Replace => "±",
            Self::Destroy => "-",
        }
    }
}

/// One step of a plan. `op` is what the layer's `apply` is handed: it makes no choices of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step<Op> {
    /// What is done.
    pub action: Action,
    /// To what kind of thing.
    pub resource: &'static str,
    /// Its deterministic name, or its id where it has none.
    pub name: String,
    /// Why.
    pub why: String,
    /// Steps of one stage do not depend on each other and run side by side; stages run in order.
    #[serde(skip)]
    pub stage: u8,
    /// What the layer does.
    #[serde(skip)]
    pub op: Op,
}

impl<Op> Step<Op> {
    /// A step that makes something that is not there.
    pub fn add(stage: u8, resource: &'static str, name: impl Into<String>, op: Op) -> Self {
        Self::new(Action::Add, stage, resource, name, op).because("does not exist")
    }

    /// A step that changes something in place.
    pub fn change(stage: u8, resource: &'static str, name: impl Into<String>, op: Op) -> Self {
        Self::new(Action::Change, stage, resource, name, op)
    }

    /// A step that removes something.
    pub fn destroy(stage: u8, resource: &'static str, name: impl Into<String>, op: Op) -> Self {
        Self::new(Action::Destroy, stage, resource, name, op)
    }

    fn new(
        action: Action,
        stage: u8,
        resource: &'static str,
        name: impl Into<String>,
        op: Op,
    ) -> Self {
        Self { action, resource, name: name.into(), why: String::new(), stage, op }
    }

    /// The same step of a layer that embeds this one.
    pub fn map<Outer>(self, wrap: impl FnOnce(Op) -> Outer) -> Step<Outer> {
        let Self { action, resource, name, why, stage, op } = self;
        Step { action, resource, name, why, stage, op: wrap(op) }
    }

    /// Says why.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
}

/// What a step came to, and what the layer's facts learn from it.
pub struct Applied<Facts> {
    /// How it ended.
    pub outcome: StepOutcome,
    /// What is known now.
    pub learn: Box<dyn FnOnce(&mut Facts) + Send>,
}

impl<Facts> Debug for Applied<Facts> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applied").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl<Facts> Applied<Facts> {
    /// It went through, and this is known now.
    pub fn done(learn: impl FnOnce(&mut Facts) + Send + 'static) -> Self {
        Self { outcome: StepOutcome::Done, learn: Box::new(learn) }
    }

    /// The same end for a layer whose facts hold these.
    #[must_use]
    pub fn within<Outer>(self, part: fn(&mut Outer) -> &mut Facts) -> Applied<Outer>
    where
        Facts: 'static,
        Outer: 'static,
    {
        let learn = self.learn;
        Applied { outcome: self.outcome, learn: Box::new(move |outer| learn(part(outer))) }
    }

    /// It ended so, and nothing new is known.
    #[must_use]
    pub fn ended(outcome: StepOutcome) -> Self {
        Self { outcome, learn: Box::new(|_| {}) }
    }
}

/// One layer, as the driver sees it: four verbs up, and the same things taken away on the way down.
///
/// `plan` and `teardown` are pure: no clients, no clock, no environment.
pub trait Storey {
    /// Which layer this is.
    const LAYER: Layer;
    /// What was observed.
    type Facts: Debug + Send + Sync;
    /// What its steps do.
    type Op: Debug + Clone + PartialEq + Send + Sync;

    /// Reads what is there. Without inputs (on the way down) only what is owned.
    fn observe(
        world: &World,
        inputs: Option<&Inputs>,
    ) -> impl Future<Output = Result<Self::Facts, StackError>>;

    /// What would make the world as asked.
    ///
    /// # Errors
    /// [`StackError::Conflict`] when no sequence of steps would.
    fn plan(inputs: &Inputs, facts: &Self::Facts) -> Result<Vec<Step<Self::Op>>, StackError>;

    /// What would make the layer empty.
    fn teardown(scope: &Scope, facts: &Self::Facts) -> Vec<Step<Self::Op>>;

    /// Does one step.
    fn apply(
        world: &World,
        op: &Self::Op,
        facts: &Self::Facts,
    ) -> impl Future<Output = Result<Applied<Self::Facts>, StackError>>;

    /// Proves the layer, live, waiting as long as it may take.
    fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut Self::Facts,
    ) -> impl Future<Output = Result<Gate, StackError>>;

    /// Hands on what the layers above need.
    fn give(inputs: &Inputs, facts: &Self::Facts, given: &mut Given);
}
