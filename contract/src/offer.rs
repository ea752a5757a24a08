//! GPUs as pods can have them: what a node has, what a device plugin offers of it, and whether that is all.
//! The node's own agent and `control` count them alike.

use std::fmt;
use std::str::FromStr;

use crate::names::{RESOURCE_GPU, RESOURCE_MIG_PREFIX};

/// The GPUs of a node that answer, as NVML sees them. The Node condition's message says them while it is
/// True, so that whoever looks from outside knows how MIG divides them: [`fmt::Display`] writes it,
/// [`FromStr`] reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// All of them.
    pub gpus: u32,
    /// Those of them that MIG divides.
    pub divided: u32,
    /// The parts of these, together.
    pub parts: u32,
}

/// What a device plugin has registered: extended resources of a Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugged {
    /// `nvidia.com/gpu`; none while nobody has named it.
    pub gpus: Option<u32>,
    /// `nvidia.com/mig-1g.10gb` and its like, together.
    pub parts: u32,
}

/// How much of what pods could have they can have: GPUs, and parts where these are offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// So many are on offer.
    pub offered: u32,
    /// So many there are.
    pub wanted: u32,
}

impl Plugged {
    /// Reads a Node's `capacity` or `allocatable`.
    pub fn of<'a>(resources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut plugged = Self::default();
        for (name, quantity) in resources {
            let count = quantity.parse().ok();
            if name == RESOURCE_GPU {
                plugged.gpus = count;
            } else if name.starts_with(RESOURCE_MIG_PREFIX) {
                plugged.parts += count.unwrap_or_default();
            }
        }
        plugged
    }

    /// Whether there is nothing that a pod could have.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.gpus.unwrap_or_default() == 0 && self.parts == 0
    }
}

impl Offered {
    /// Whether all are on offer.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.offered >= self.wanted
    }
}

impl Devices {
    /// So many, none of them divided.
    #[must_use]
    pub const fn whole(gpus: u32) -> Self {
        Self { gpus, divided: 0, parts: 0 }
    }

    /// What of them a device plugin offers. Where MIG divides GPUs, its strategy says as what: `none`, GPUs
    /// all the same; `single`, each part as a GPU; `mixed`, parts by their profile.
    #[must_use]
    pub fn plugged(self, plugged: Plugged) -> Offered {
        let Self { gpus, divided, parts } = self;
        let offered = plugged.gpus.unwrap_or_default();
        let (undivided, all) = (gpus - divided, gpus - divided + parts);
        if plugged.parts > 0 {
            let offered = offered.min(undivided) + plugged.parts.min(parts);
            Offered { offered, wanted: all }
        } else if divided == 0 || offered == gpus {
            // Exactly where they are divided: more would be parts, and then all of them must be there.
            Offered { offered: offered.min(gpus), wanted: gpus }
        } else {
            Offered { offered: offered.min(all), wanted: all }
        }
    }

    /// What of them a DRA driver offers. Divided ones are not GPUs there, and their parts may be cut anew
    /// for each claim.
    #[must_use]
    pub fn sliced(self, allocatable: u32) -> Offered {
        let wanted = self.gpus - self.divided;
        Offered { offered: allocatable.min(wanted), wanted }
    }
}

const PROVEN: &str = " GPUs are proven and answer";

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gpus, divided, parts } = self;
        write!(f, "{gpus}{PROVEN}")?;
        match divided {
            0 => Ok(()),
            _ => write!(f, ", {divided} of them in {parts} MIG devices"),
        }
    }
}

/// A text that does not say how many GPUs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDevices;

impl FromStr for Devices {
    type Err = NotDevices;

    fn from_str(text: &str) -> Result<Self, NotDevices> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotDevices);
        let (gpus, rest) = text.split_once(PROVEN).ok_or(NotDevices)?;
        let gpus = number(gpus)?;
        let Some(rest) = rest.strip_prefix(", ") else { return Ok(Self::whole(gpus)) };
        let (divided, rest) = rest.split_once(" of them in ").ok_or(NotDevices)?;
        let parts = rest.strip_suffix(" MIG devices").ok_or(NotDevices)?;
        let devices = Self { gpus, divided: number(divided)?, parts: number(parts)? };
        (devices.divided <= gpus).then_some(devices).ok_or(NotDevices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of eight in seven parts each.
    const SOME: Devices = Devices { gpus: 8, divided: 2, parts: 14 };
    /// Each in seven.
    const ALL: Devices = Devices { gpus: 8, divided: 8, parts: 56 };

    #[test]
    fn a_plugins_strategy_says_what_is_on_offer() {
        for (devices, gpus, parts, offered, wanted) in [
            (Devices::whole(8), 8, 0, 8, 8),
            (Devices::whole(8), 7, 0, 7, 8),
            // Time slices of the same GPUs.
            (Devices::whole(8), 32, 0, 8, 8),
            (SOME, 6, 14, 20, 20),
            (SOME, 6, 13, 19, 20),
            (SOME, 5, 14, 19, 20),
            // Strategy none: divided or not, a GPU is a GPU.
            (SOME, 8, 0, 8, 8),
            (SOME, 0, 0, 0, 20),
            // Strategy single: each part is a GPU.
            (ALL, 56, 0, 56, 56),
            (ALL, 55, 0, 55, 56),
            (ALL, 8, 0, 8, 8),
            (ALL, 0, 56, 56, 56),
            (ALL, 0, 50, 50, 56),
        ] {
            let plugged = Plugged { gpus: Some(gpus), parts };
            assert_eq!(
                devices.plugged(plugged),
                Offered { offered, wanted },
                "{devices:?} {gpus} {parts}"
            );
        }
        assert_eq!(SOME.sliced(6), Offered { offered: 6, wanted: 6 });
        assert!(ALL.sliced(0).is_whole() && !Devices::whole(8).sliced(7).is_whole());
    }

    #[test]
    fn a_nodes_resources_are_read_by_name() {
        let named =
            [("cpu", "191450m"), ("nvidia.com/mig-1g.10gb", "4"), ("nvidia.com/mig-3g.40gb", "2")];
        assert_eq!(Plugged::of(named), Plugged { gpus: None, parts: 6 });
        let gpus = Plugged::of([("nvidia.com/gpu", "8"), ("nvidia.com/gpu.shared", "3")]);
        assert_eq!(gpus, Plugged { gpus: Some(8), parts: 0 });
        assert!(Plugged::of([("nvidia.com/gpu", "0")]).is_empty());
    }

    /// The condition's message is read by `control`s of other versions: it changes only on purpose.
    #[test]
    fn what_the_condition_says_is_read_back() {
        for (devices, text) in [
            (Devices::whole(8), "8 GPUs are proven and answer"),
            (SOME, "8 GPUs are proven and answer, 2 of them in 14 MIG devices"),
        ] {
            assert_eq!(devices.to_string(), text);
            assert_eq!(text.parse(), Ok(devices));
        }
        for text in
            ["", "8 of 8 GPUs work", "1 GPUs are proven and answer, 2 of them in 3 MIG devices"]
        {
            assert_eq!(text.parse::<Devices>(), Err(NotDevices), "{text}");
        }
    }
}
