//! Whether the driver comes up, and what keeps it.

use contract::Reason;
use contract::driver::first_branch;

use super::{Cause, HANG_PROVEN, SETTLING, Seen};
use crate::gpu::expected::{Kind, kind_needed};
use crate::gpu::probe::Outcome;
use crate::gpu::sample::{CallError, Failure};

impl Seen<'_> {
    pub(super) fn absent(&self) -> Option<Cause> {
        let none = self.pci() == Some(0) && self.required() > 0;
        none.then(|| {
            let summary = format!(
                "0 of {} GPUs: the PCI bus of this `{}` shows none",
                self.required(),
                self.expected.instance_type
            );
            Cause { finding: self.finding(Reason::GpuAbsent, summary), may_heal: false }
        })
    }

    /// Trouble with the driver as a whole.
    pub(super) fn driver(&self) -> Option<Cause> {
        let (reason, summary, may_heal) = match &self.facts.nvml.outcome {
            Outcome::NotAsked(_) if self.required() == 0 => return None,
            Outcome::NotAsked(_) => self.not_loaded(),
            Outcome::Failed(failure) => self.failed(failure),
            Outcome::Hung { asking, after } => (
                Reason::DriverHang,
                format!("no answer to {asking} within {:.0} s", after.as_secs_f64()),
                *after < HANG_PROVEN,
            ),
            Outcome::HelperFailed(error) => (
                Reason::DriverInitFailed,
                format!("the helper that asks NVML failed: {error}"),
                self.is_coming(),
            ),
            Outcome::Complete => self.changed_under_us()?,
        };
        Some(Cause { finding: self.finding(reason, summary), may_heal })
    }

    fn not_loaded(&self) -> (Reason, String, bool) {
        let what = "the kernel module `nvidia` is not loaded";
        let kernels = &self.facts.kernels;
        if kernels.is_mismatch() {
            let (running, built_for) = (kernels.running.as_deref(), kernels.built_for.join(", "));
            let summary = format!(
                "{what}: it is there for {built_for}, and {} runs",
                running.unwrap_or_default()
            );
            // A unit at work may be building it.
            return (Reason::DriverKernelMismatch, summary, self.pending_unit().is_some());
        }
        match (self.pending_unit(), self.failed_unit()) {
            (Some(unit), _) => {
                (Reason::DriverNotLoaded, format!("{what}; {unit} is at work"), self.is_coming())
            }
            (None, Some(unit)) => {
                (Reason::DriverUnitFailed, format!("{what}: {unit} has failed for good"), false)
            }
            (None, None) => (Reason::DriverNotLoaded, what.to_owned(), self.is_coming()),
        }
    }

    /// Whether the driver finds no GPUs, or fewer than the bus shows.
    fn finds_less(&self) -> bool {
        match &self.facts.nvml.outcome {
            Outcome::Complete => {
                let found = self.facts.nvml.gpus.len();
                found < self.required() && self.pci().is_some_and(|count| count >= self.required())
            }
            Outcome::Failed(Failure::Init { error, .. }) => {
                error.code != CallError::VERSION_MISMATCH
            }
            _ => false,
        }
    }

    /// A driver of another kind than these GPUs need: images that were booted on another family when
    /// they were made keep that family's.
    pub(super) fn wrong_kind(&self) -> Option<Cause> {
        let is_loaded = self.facts.module.version.is_some();
        if is_loaded && !self.finds_less() {
            return None;
        }
        let needed = kind_needed(&self.expectation)?;
        let module = &self.facts.module;
        let kind = match needed {
            // What the module says of itself does not tell.
            Kind::Grid => module.chosen,
            Kind::Open | Kind::Proprietary => module.kind.or(module.chosen),
        };
        let kind = kind.filter(|kind| *kind != needed)?;
        let (have, need) = (kind.name(), needed.name());
        let who = &self.expected.instance_type;
        let summary = format!("the driver is the {have} one, and a `{who}` needs the {need} one");
        let may_heal = !is_loaded && self.pending_unit().is_some();
        Some(Cause { finding: self.finding(Reason::DriverBranchMismatch, summary), may_heal })
    }

    /// A driver that finds no GPUs, or fewer than there are, because it is older than they are.
    pub(super) fn too_old(&self) -> Option<Cause> {
        let model = self.expectation.model.as_deref()?;
        let version = self.facts.module.version.as_deref()?;
        let branch: u32 = version.split('.').next()?.parse().ok()?;
        let first = first_branch(model).filter(|first| self.finds_less() && branch < *first)?;
        let summary = format!("the driver is {version}, and {model} needs {first} or newer");
        Some(Cause { finding: self.finding(Reason::DriverTooOld, summary), may_heal: false })
    }

    fn failed(&self, failure: &Failure) -> (Reason, String, bool) {
        match failure {
            Failure::LibraryMissing { searched } => (
                Reason::DriverLibraryMissing,
                format!("libnvidia-ml.so.1 is in none of {} directories", searched.len()),
                self.is_coming(),
            ),
            Failure::LibraryUnloadable { library, error } => (
                Reason::DriverLibraryMissing,
                format!("`{library}` cannot be loaded: {error}"),
                self.is_coming(),
            ),
            Failure::Init { error, .. } if error.code == CallError::VERSION_MISMATCH => {
                let library = match &self.facts.library_version {
                    Some(version) => format!("the library is {version}"),
                    None => "the library is of another version".to_owned(),
                };
                let module = self.facts.module.version.as_deref().unwrap_or("unknown");
                (
                    Reason::DriverLibraryMismatch,
                    format!("the kernel module is {module}, {library}"),
                    // Time does not mend it; a unit that is still installing may.
                    self.pending_unit().is_some(),
                )
            }
            Failure::Init { error, .. } if error.code == CallError::DRIVER_NOT_LOADED => (
                Reason::DriverNotLoaded,
                format!("NVML finds no driver: {error}"),
                self.is_coming(),
            ),
            Failure::Init { error, .. } => (
                Reason::DriverInitFailed,
                format!("NVML does not initialise: {error}"),
                self.is_coming(),
            ),
        }
    }

    /// NVML answers for another driver than the kernel shows: one was replaced since.
    fn changed_under_us(&self) -> Option<(Reason, String, bool)> {
        let module = self.facts.module.version.as_ref()?;
        let nvml = &self.facts.nvml.driver.as_ref()?.version;
        (module != nvml).then(|| {
            let summary = format!("the kernel module is {module}, NVML answers for {nvml}");
            (Reason::DriverLibraryMismatch, summary, self.pending_unit().is_some())
        })
    }

    /// Whether the driver can still come up by itself.
    pub(super) fn is_coming(&self) -> bool {
        self.pending_unit().is_some() || (self.failed_unit().is_none() && self.facts.up < SETTLING)
    }

    pub(super) fn pending_unit(&self) -> Option<&'static str> {
        self.facts.units.iter().find(|(_, state)| state.is_pending()).map(|(unit, _)| *unit)
    }

    fn failed_unit(&self) -> Option<&'static str> {
        self.facts.units.iter().find(|(_, state)| state.active == "failed").map(|(unit, _)| *unit)
    }
}
