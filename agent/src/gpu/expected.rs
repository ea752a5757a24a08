//! Which GPUs an instance should have: what `control` wrote down, else a table, else unknown.
//!
//! The table is `ec2-gpu-instances.csv` beside this file: DescribeInstanceTypes, and for the types
//! that it lacked what eks-node-monitoring-agent knows. A type that is in neither is never skipped
//! in silence: its count is [`Count::Unknown`], and the verdict says so.

use contract::agent_config::ExpectedGpus;

const TABLE: &str = include_str!("ec2-gpu-instances.csv");

/// How many GPUs there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// This many.
    Exactly(u32),
    /// A share of one: EC2 counts 0, the bus shows one or more.
    AtLeastOne,
    /// Nobody has said.
    Unknown,
}

/// The GPUs that an instance should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// How many.
    pub count: Count,
    /// Model as EC2 names it.
    pub model: Option<String>,
    /// Memory of one in MiB, as EC2 counts it.
    pub memory_mib: Option<u64>,
    /// Who says so.
    pub source: &'static str,
}

/// The expectation for an instance: `configured` comes from the agent config.
#[must_use]
pub fn expectation(instance_type: &str, configured: Option<&ExpectedGpus>) -> Expectation {
    let row = TABLE.lines().skip(1).find(|row| row.split(',').next() == Some(instance_type));
    let row = row.map(parse);
    if let Some(gpus) = configured {
        let count = match (gpus.count, &gpus.model) {
            // EC2 counts a share of a GPU as none, and names it.
            (0, Some(_)) => Count::AtLeastOne,
            (count, _) => Count::Exactly(count),
        };
        // What it leaves out, the table may know.
        let known = row.filter(|row| row.count == count);
        let (model, memory) = known.map_or((None, None), |row| (row.model, row.memory_mib));
        return Expectation {
            count,
            model: gpus.model.clone().or(model),
            memory_mib: gpus.memory_mib.or(memory),
            source: "agent config",
        };
    }
    if let Some(row) = row {
        return row;
    }
    let has_none = !instance_type.is_empty() && !is_gpu_family(instance_type);
    Expectation {
        count: if has_none { Count::Exactly(0) } else { Count::Unknown },
        model: None,
        memory_mib: None,
        source: if has_none { "instance family" } else { "nobody" },
    }
}

fn parse(row: &str) -> Expectation {
    let mut columns = row.split(',').skip(1);
    let mut column = || columns.next().filter(|text| !text.is_empty());
    let count = match column().and_then(|text| text.parse().ok()) {
        Some(0) => Count::AtLeastOne,
        Some(count) => Count::Exactly(count),
        None => Count::Unknown,
    };
    Expectation {
        count,
        model: column().map(str::to_owned),
        memory_mib: column().and_then(|text| text.parse().ok()),
        source: "table of instance types",
    }
}

/// Models that the open kernel module alone drives: NVIDIA requires it from Blackwell on.
const OPEN_ONLY: [&str; 5] = ["B200", "B300", "GB200", "RTX PRO 4500", "RTX PRO Server 6000"];
/// Models that it does not drive: they are older than the processor that it needs.
const PROPRIETARY_ONLY: [&str; 1] = ["V100"];

/// The kinds of NVIDIA's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With the open kernel module.
    Open,
    /// With the closed one.
    Proprietary,
    /// For a share of a GPU.
    Grid,
}

impl Kind {
    /// Its name in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Proprietary => "proprietary",
            Self::Grid => "GRID",
        }
    }
}

/// The kind of driver that the GPUs need; none when more than one will do.
#[must_use]
pub fn kind_needed(expectation: &Expectation) -> Option<Kind> {
    let model = expectation.model.as_deref()?;
    if expectation.count == Count::AtLeastOne {
        Some(Kind::Grid)
    } else if OPEN_ONLY.contains(&model) {
        Some(Kind::Open)
    } else {
        PROPRIETARY_ONLY.contains(&model).then_some(Kind::Proprietary)
    }
}

/// EC2 puts NVIDIA GPUs into the families g, gr and p; `g5.xlarge`, `gr6f.4xlarge`, `p6-b200.48xlarge`.
/// AMD's g4ad has GPUs that are not ours to prove.
fn is_gpu_family(instance_type: &str) -> bool {
    let digit = instance_type.find(|character: char| character.is_ascii_digit());
    let family = &instance_type[..digit.unwrap_or(instance_type.len())];
    matches!(family, "g" | "gr" | "p") && !instance_type.starts_with("g4ad.")
}

/// Whether the product that NVML names is the model that EC2 names: every word of EC2's stands in
/// NVML's, as a word. `H100` is in `NVIDIA H100 80GB HBM3`; `L40` is not in `NVIDIA L40S`.
#[must_use]
pub fn is_model(ec2: &str, nvml: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_ascii_uppercase()
            .split(|character: char| !character.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let named = words(nvml);
    words(ec2).iter().all(|word| named.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_config_outranks_the_table() {
        let configured =
            ExpectedGpus { count: 4, model: Some("H100".into()), memory_mib: Some(81_920) };
        let expected = expectation("p5.48xlarge", Some(&configured));
        assert_eq!((expected.count, expected.source), (Count::Exactly(4), "agent config"));
        assert_eq!(expected.model.as_deref(), Some("H100"));
        let bare = ExpectedGpus { count: 8, model: None, memory_mib: None };
        let completed = expectation("p5.48xlarge", Some(&bare));
        assert_eq!(completed.model.as_deref(), Some("H100"), "the table completes it");
        let other = ExpectedGpus { count: 3, ..bare };
        assert_eq!(expectation("p5.48xlarge", Some(&other)).model, None);
        let share = ExpectedGpus { count: 0, model: Some("L4".into()), memory_mib: Some(2_861) };
        assert_eq!(expectation("g6f.large", Some(&share)).count, Count::AtLeastOne);
        let none = ExpectedGpus { model: None, ..share };
        assert_eq!(expectation("m7i.large", Some(&none)).count, Count::Exactly(0));
    }

    #[test]
    fn counts_by_instance_type() {
        for (instance_type, count, model) in [
            ("g4dn.12xlarge", Count::Exactly(4), Some("T4")),
            ("g5.48xlarge", Count::Exactly(8), Some("A10G")),
            ("g6e.xlarge", Count::Exactly(1), Some("L40S")),
            ("g6f.large", Count::AtLeastOne, Some("L4")),
            ("g7e.48xlarge", Count::Exactly(8), Some("RTX PRO Server 6000")),
            ("p3.8xlarge", Count::Exactly(4), None),
            ("p4d.24xlarge", Count::Exactly(8), Some("A100")),
            ("p5.48xlarge", Count::Exactly(8), Some("H100")),
            ("p6e-gb200.36xlarge", Count::Exactly(4), None),
            ("p9.metal", Count::Unknown, None),
            ("gr7.xlarge", Count::Unknown, None),
            ("", Count::Unknown, None),
            ("m7i.large", Count::Exactly(0), None),
            ("c8g.large", Count::Exactly(0), None),
            ("trn2.48xlarge", Count::Exactly(0), None),
            ("g4ad.xlarge", Count::Exactly(0), None),
        ] {
            let expected = expectation(instance_type, None);
            assert_eq!(expected.count, count, "{instance_type}");
            assert_eq!(expected.model.as_deref(), model, "{instance_type}");
        }
    }

    #[test]
    fn every_row_of_the_table_says_something() {
        let rows: Vec<&str> = TABLE.lines().skip(1).collect();
        assert!(rows.len() > 60);
        for row in rows {
            let name = row.split(',').next().unwrap();
            assert_ne!(expectation(name, None).count, Count::Unknown, "{name}");
            assert!(is_gpu_family(name), "{name}");
        }
    }

    #[test]
    fn models_by_their_words() {
        for (ec2, nvml, same) in [
            ("H100", "NVIDIA H100 80GB HBM3", true),
            ("H200", "NVIDIA H200", true),
            ("A100", "NVIDIA A100-SXM4-40GB", true),
            ("T4", "Tesla T4", true),
            ("T4g", "NVIDIA T4G", true),
            ("T4", "NVIDIA T4G", false),
            ("L40S", "NVIDIA L40S", true),
            ("L40S", "NVIDIA L40", false),
            ("L4", "NVIDIA L40S", false),
            ("A10G", "NVIDIA A10", false),
            ("B200", "NVIDIA GB200", false),
            ("V100", "Tesla V100-SXM2-32GB", true),
            ("RTX PRO Server 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", true),
            ("H100", "NVIDIA H200", false),
        ] {
            assert_eq!(is_model(ec2, nvml), same, "{ec2} against {nvml}");
        }
    }
}
