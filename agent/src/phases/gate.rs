//! The tokens that gates hand out: proof, for the compiler, that a gate was open.

use contract::Verdict;

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(());

        impl $name {
            /// The token, if the verdict opens the gate.
            #[must_use]
            pub fn of(verdict: &Verdict) -> Option<Self> {
                verdict.is_open().then_some(Self(()))
            }
        }
    )*};
}

tokens! {
    /// Phase 3's gate was open.
    Reachable
    /// Phase 4's gate was open, or the node has no GPUs to prove.
    DriversProven
    /// Phase 5's gate was open.
    ConfigurationWritten
    /// Phase 6's gate was open.
    CniProven
}

#[cfg(test)]
impl super::register::Proofs {
    pub(crate) fn for_tests() -> Self {
        Self {
            drivers: DriversProven(()),
            reachable: Reachable(()),
            written: ConfigurationWritten(()),
            cni: CniProven(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::{Finding, Phase, Reason};

    use super::*;

    #[test]
    fn only_an_open_gate_hands_out_its_token() {
        let finding = || Finding::new(Reason::GpuAbsent, Phase::Drivers, "none");
        assert!(DriversProven::of(&Verdict::Pass).is_some());
        assert!(DriversProven::of(&Verdict::Degraded(vec![finding()])).is_some());
        assert!(DriversProven::of(&Verdict::Wait(Box::new(finding()))).is_none());
        assert!(DriversProven::of(&Verdict::Fail(vec![finding()])).is_none());
    }
}
