//! The figures, as a document and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// When, RFC 3339.
    pub at: String,
    /// On what.
    pub machine: Machine,
    /// Which parts of the run were real.
    pub parts: BTreeMap<&'static str, String>,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// On what it was measured; the load says how far the figures are upper bounds.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// `/proc/loadavg` when the run began.
    pub load: String,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Ours: the median of the samples.
    pub ours: f64,
    /// Whom we compare with, where somebody can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// What it must not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Every sample of ours.
    pub samples: Vec<f64>,
}

/// Somebody to compare with.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// Who.
    pub name: String,
    /// Theirs: the median of the samples.
    pub value: f64,
    /// Every sample of theirs.
    pub samples: Vec<f64>,
}

impl Peer {
    /// A peer measured in the same run.
    #[must_use]
    pub fn of(name: &str, samples: Vec<f64>) -> Self {
        Self { name: name.to_owned(), value: median(&samples), samples }
    }
}

impl Figure {
    /// A figure of these samples.
    #[must_use]
    pub fn of(name: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        let ours = median(&samples);
        Self { name: name.into(), unit, ours, peer: None, limit: None, samples }
    }

    /// Beside a peer.
    #[must_use]
    pub fn beside(mut self, peer: Option<Peer>) -> Self {
        self.peer = peer;
        self
    }

    /// With a limit.
    #[must_use]
    pub const fn within(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether it keeps its limit; one without a limit does.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.limit.is_none_or(|limit| self.ours <= limit)
    }
}

impl Summary {
    /// The figures as people read them.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let Figure { name, unit, ours, limit, .. } = figure;
            let word = match limit {
                None => "",
                Some(_) if figure.holds() => "ok",
                Some(_) => "OVER",
            };
            let limit = limit.map(|limit| format!("of at most {limit}")).unwrap_or_default();
            let peer = figure.peer.as_ref();
            let peer = peer.map(|p| format!("{}: {:.1} {unit}", p.name, p.value));
            let peer = peer.unwrap_or_default();
            _ = writeln!(text, "{word:<5}{name:<44}{ours:>9.1} {unit:<4} {limit:<18} {peer}");
        }
        text
    }
}

/// The middle one; of an even number the mean of the two in the middle.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_figure_over_its_limit_says_so() {
        let figure = |ours| Figure::of("x", "ms", vec![ours]).within(150.0);
        assert!(figure(150.0).holds() && !figure(151.0).holds());
        assert!(!figure(f64::NAN).holds(), "what was not measured holds nothing");
    }
}
