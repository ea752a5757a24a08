//! AWS's services that the node needs besides its cluster: EC2 when nodeadm will ask it, and softly
//! STS and ECR.

use contract::{Finding, Reason};

use super::finding;
use super::reach::Unreached;

/// Which of them can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// EC2; none when nodeadm will not call it.
    pub ec2: Option<Result<(), Unreached>>,
    /// STS.
    pub sts: Result<(), String>,
    /// ECR's API.
    pub ecr: Result<(), String>,
}

/// What is soft: reported, and in nobody's way.
#[must_use]
pub fn soft(services: &Services) -> Vec<Finding> {
    let unreached = |service: &str, reached: &Result<(), String>, reason| {
        let why = reached.as_ref().err()?;
        Some(finding(reason, format!("{service}: {why}")))
    };
    [
        unreached("STS", &services.sts, Reason::StsUnreachable),
        unreached("ECR", &services.ecr, Reason::EcrUnreachable),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What nodeadm needs and may still come: a route, an endpoint, a proxy that starts.
#[must_use]
pub fn awaited(services: &Services) -> Option<Finding> {
    let error = services.ec2.as_ref()?.as_ref().err()?;
    Some(match error {
        Unreached::Proxy { .. } => finding(Reason::ProxyMisconfigured, error.to_string()),
        Unreached::NoAddress { .. }
        | Unreached::NoConnection { .. }
        | Unreached::BeyondProxy { .. } => finding(
            Reason::Ec2ApiUnreachable,
            format!("EC2, which nodeadm asks for the node's name: {error}"),
        ),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::phases::preflight) fn services() -> Services {
        Services { ec2: Some(Ok(())), sts: Ok(()), ecr: Ok(()) }
    }

    fn refused() -> Unreached {
        Unreached::NoConnection { target: "ec2:443".into(), tried: vec![] }
    }

    #[test]
    fn ec2_counts_only_when_nodeadm_asks_it() {
        assert_eq!(awaited(&services()), None);
        assert_eq!(awaited(&Services { ec2: None, ..services() }), None);
        let cut_off = Services { ec2: Some(Err(refused())), ..services() };
        assert_eq!(awaited(&cut_off).unwrap().reason, Reason::Ec2ApiUnreachable);
        let proxy = Unreached::Proxy { proxy: "p:1".into(), what: "does not resolve".into() };
        let behind = Services { ec2: Some(Err(proxy)), ..services() };
        assert_eq!(awaited(&behind).unwrap().reason, Reason::ProxyMisconfigured);
    }

    #[test]
    fn sts_and_ecr_are_soft() {
        assert!(soft(&services()).is_empty());
        let none = Services { sts: Err("no".into()), ecr: Err("no".into()), ..services() };
        let names: Vec<String> = soft(&none).iter().map(|f| f.reason.to_string()).collect();
        assert_eq!(names, ["StsUnreachable", "EcrUnreachable"]);
        assert!(soft(&none).iter().all(|finding| !finding.reason.is_hard()));
    }
}
