//! AWS partitions: the part of an ARN and the domain that depend on the region.

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in ARNs: `aws`.
    pub name: &'static str,
    /// Domain of its services: `amazonaws.com`.
    pub suffix: &'static str,
}

const PARTITIONS: [(&[&str], Partition); 5] = [
    (&["us-gov-"], Partition { name: "aws-us-gov", suffix: "amazonaws.com" }),
    (&["cn-"], Partition { name: "aws-cn", suffix: "amazonaws.com.cn" }),
    (&["us-iso-"], Partition { name: "aws-iso", suffix: "c2s.ic.gov" }),
    (&["us-isob-"], Partition { name: "aws-iso-b", suffix: "sc2s.sgov.gov" }),
    (
        &["us-", "eu-", "ap-", "sa-", "ca-", "me-", "af-", "il-", "mx-"],
        Partition { name: "aws", suffix: "amazonaws.com" },
    ),
];

/// The partition of a region; none for a region of no partition known here.
#[must_use]
pub fn of_region(region: &str) -> Option<Partition> {
    PARTITIONS
        .iter()
        .find(|(prefixes, _)| prefixes.iter().any(|prefix| region.starts_with(prefix)))
        .map(|(_, partition)| *partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_find_their_partition() {
        for (region, name) in [
            ("us-east-1", "aws"),
            ("eu-central-2", "aws"),
            ("us-gov-west-1", "aws-us-gov"),
            ("cn-north-1", "aws-cn"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
        ] {
            assert_eq!(of_region(region).unwrap().name, name, "{region}");
        }
        assert_eq!(of_region("xx-north-1"), None);
    }
}
