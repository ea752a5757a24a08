//! Which network interfaces a node with EFA gets, by its type's network cards. Pure.
//!
//! EC2 gives every card an EFA device once its interface says so; nothing adds one later. Only the
//! first interface has an address: `efa-only` ones carry no IP traffic and take none of the subnet's
//! (`docs.aws.amazon.com/AWSEC2`, "Maximize network bandwidth on EFA").

use serde::Serialize;

use crate::aws::ec2::{NetworkCard, TypeFacts};

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// ENA alone.
    Interface,
    /// ENA and EFA.
    Efa,
    /// EFA alone.
    EfaOnly,
}

impl InterfaceKind {
    /// EC2's word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Efa => "efa",
            Self::EfaOnly => "efa-only",
        }
    }
}

/// One interface of a launch template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Index of its network card.
    pub card: u32,
    /// Its index on the card: 0 is the node's primary interface, and there alone.
    pub device: u32,
    /// What it is.
    pub kind: InterfaceKind,
}

/// The interfaces of a node that has EFA wherever its type has it; empty for a type without.
///
/// The primary one lies on card 0, with EFA where that card has it (on p6-b300 it has not); each other
/// card gets one `efa-only`, as its second device.
#[must_use]
pub fn layout(kind: &TypeFacts) -> Vec<Interface> {
    if kind.efa_devices == 0 {
        return Vec::new();
    }
    let cards = &kind.network_cards;
    let on_first = cards.iter().any(|card| card.index == 0 && card.efa);
    let first = if on_first { InterfaceKind::Efa } else { InterfaceKind::Interface };
    let primary = Interface { card: 0, device: 0, kind: first };
    let left = kind.efa_devices - u32::from(on_first);
    let others = cards.iter().filter(|card| card.index != 0 && card.efa);
    let others = others.take(usize::try_from(left).unwrap_or(usize::MAX)).map(|card| Interface {
        card: card.index,
        device: 1,
        kind: alone(card),
    });
    std::iter::once(primary).chain(others).collect()
}

/// Types from before `efa-only` have `efa` alone on every card.
const fn alone(card: &NetworkCard) -> InterfaceKind {
    if card.efa_only { InterfaceKind::EfaOnly } else { InterfaceKind::Efa }
}

/// How many EFA devices a node with these interfaces has.
#[must_use]
pub fn efa_devices(interfaces: &[Interface]) -> u32 {
    let efa = interfaces.iter().filter(|one| one.kind != InterfaceKind::Interface);
    u32::try_from(efa.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: u32, cards: &[(bool, bool)]) -> TypeFacts {
        let cards = (0..).zip(cards);
        TypeFacts {
            efa_devices: devices,
            network_cards: cards
                .map(|(index, (efa, efa_only))| NetworkCard {
                    index,
                    efa: *efa,
                    efa_only: *efa_only,
                })
                .collect(),
            ..TypeFacts::example()
        }
    }

    #[test]
    fn every_card_of_a_type_gets_its_device_once() {
        use InterfaceKind::{Efa, EfaOnly, Interface as Plain};
        let all = (true, true);
        // EC2's own answers, DescribeInstanceTypes: EFA devices, cards, first interface, the others.
        for (name, devices, cards, first, other) in [
            ("p5.48xlarge", 32, vec![all; 32], Efa, EfaOnly),
            ("p4d.24xlarge", 4, vec![all; 4], Efa, EfaOnly),
            ("g5.12xlarge", 1, vec![all; 1], Efa, EfaOnly),
            (
                "p6-b300.48xlarge",
                16,
                [vec![(false, false)], vec![all; 16]].concat(),
                Plain,
                EfaOnly,
            ),
            ("a type without efa-only", 2, vec![(true, false); 2], Efa, Efa),
        ] {
            let layout = layout(&of(devices, &cards));
            assert_eq!(layout.len(), cards.len(), "{name}");
            assert_eq!(layout[0], Interface { card: 0, device: 0, kind: first }, "{name}");
            for (card, one) in (1..).zip(&layout[1..]) {
                assert_eq!(*one, Interface { card, device: 1, kind: other }, "{name}");
            }
            assert_eq!(efa_devices(&layout), devices, "{name}");
        }
    }

    #[test]
    fn a_type_without_efa_gets_no_layout_and_one_with_less_than_its_cards_no_more() {
        assert_eq!(layout(&of(0, &[(false, false)])), []);
        assert_eq!(efa_devices(&layout(&of(2, &[(true, true); 4]))), 2);
    }
}
