//! Faults of a node's network: one path of one node, as `net-drop=ec2` or `net-delay=api:500`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long `net-delay` holds bytes back in each direction unless it says otherwise.
const DELAY: Duration = Duration::from_secs(2);

/// What happens on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets vanish.
    Drop,
    /// Connections are refused.
    Reject,
    /// Bytes arrive later, in each direction.
    Delay(Duration),
    /// Connections are taken and then reset.
    Reset,
}

/// Where the path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The cluster's API server.
    Api,
    /// The instance metadata service.
    Imds,
    /// An AWS service.
    Ec2,
    /// STS, by its own name.
    Sts,
    /// Systems Manager.
    Ssm,
    /// S3.
    S3,
    /// EKS.
    Eks,
    /// ECR.
    Ecr,
}

impl Path {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 8] = [
        ("api", Self::Api),
        ("imds", Self::Imds),
        ("ec2", Self::Ec2),
        ("sts", Self::Sts),
        ("ssm", Self::Ssm),
        ("s3", Self::S3),
        ("eks", Self::Eks),
        ("ecr", Self::Ecr),
    ];
}

/// One path of one node, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkFault {
    /// What happens.
    pub kind: Kind,
    /// Where.
    pub path: Path,
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Path::ALL.iter().find(|(_, path)| *path == self.path);
        let path = named.map_or("", |(name, _)| name);
        match self.kind {
            Kind::Drop => write!(f, "net-drop={path}"),
            Kind::Reject => write!(f, "net-reject={path}"),
            Kind::Reset => write!(f, "net-reset={path}"),
            Kind::Delay(delay) => write!(f, "net-delay={path}:{}", delay.as_millis()),
        }
    }
}

/// It is no network fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOne;

impl FromStr for NetworkFault {
    type Err = NotOne;

    fn from_str(text: &str) -> Result<Self, NotOne> {
        let (kind, path) =
            text.strip_prefix("net-").and_then(|t| t.split_once('=')).ok_or(NotOne)?;
        let (path, delay) = match path.split_once(':') {
            Some((path, delay)) if kind == "delay" => (path, Some(delay)),
            Some(_) => return Err(NotOne),
            None => (path, None),
        };
        let delay = match delay.map(str::parse) {
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds),
            Some(Err(_)) => return Err(NotOne),
            None => DELAY,
        };
        let kind = match kind {
            "drop" => Kind::Drop,
            "reject" => Kind::Reject,
            "reset" => Kind::Reset,
            "delay" => Kind::Delay(delay),
            _ => return Err(NotOne),
        };
        let path = Path::ALL.iter().find(|(name, _)| *name == path).ok_or(NotOne)?.1;
        Ok(Self { kind, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_and_kind_reads_back_as_it_is_written() {
        for (path, _) in Path::ALL {
            for text in ["net-drop", "net-reject", "net-reset"].map(|kind| format!("{kind}={path}"))
            {
                assert_eq!(text.parse::<NetworkFault>().unwrap().to_string(), text);
            }
            let text = format!("net-delay={path}:250");
            assert_eq!(text.parse::<NetworkFault>().unwrap().to_string(), text);
        }
        let delayed = "net-delay=api".parse::<NetworkFault>().unwrap();
        assert_eq!(delayed, NetworkFault { kind: Kind::Delay(DELAY), path: Path::Api });
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "net-drop",
            "net-drop=",
            "net-drop=mars",
            "net-drop=api:5",
            "net-delay=api:x",
            "drop=api",
        ] {
            assert_eq!(bad.parse::<NetworkFault>(), Err(NotOne), "{bad}");
        }
    }
}
