//! `control facts`: what everything that talks to the cluster must agree on.

use contract::ExitCode;

use crate::aws::eks::{self, ClusterFacts};
use crate::cli::FactsArgs;
use crate::commands::kubeconfig::facts_of_fleet;
use crate::commands::{Context, fleet};
use crate::output::Style;

/// Runs the verb.
///
/// # Errors
/// When there is no cluster, or AWS does not answer.
pub async fn run(args: &FactsArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let mut facts = facts_of_fleet(&found.clients, found.required()?).await?;
    facts.node_role_arns = eks::node_roles(&found.clients, &facts.name).await?;
    context.printer.data(args.output.output, &facts, table)?;
    Ok(ExitCode::Success)
}

fn table(facts: &ClusterFacts, style: Style) -> String {
    let node_roles = match facts.node_role_arns.as_slice() {
        [] => "none: no role has an access entry for nodes".to_owned(),
        roles => roles.join("\n                 "),
    };
    let rows = [
        ("cluster", facts.name.as_str()),
        ("status", &facts.status),
        ("version", &facts.version),
        ("endpoint", &facts.endpoint),
        ("CA", &facts.certificate_authority),
        ("cluster role", &facts.cluster_role_arn),
        ("node roles", &node_roles),
        ("service CIDR", &facts.service_cidr),
        ("security group", &facts.security_group),
        ("VPC", &facts.vpc),
        ("OIDC issuer", &facts.oidc_issuer),
    ];
    let lines = rows.map(|(name, value)| format!("{}  {value}", style.cyan(format!("{name:<15}"))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_its_row() {
        let facts = ClusterFacts {
            name: "prod".into(),
            region: "us-east-1".into(),
            arn: "arn:aws:eks:us-east-1:111122223333:cluster/prod".into(),
            endpoint: "https://ABC.gr7.us-east-1.eks.amazonaws.com".into(),
            certificate_authority: "LS0t".into(),
            version: "1.34".into(),
            service_cidr: "172.20.0.0/16".into(),
            security_group: "sg-1".into(),
            vpc: "vpc-1".into(),
            cluster_role_arn: "arn:aws:iam::111122223333:role/prod-cluster".into(),
            node_role_arns: vec![
                "arn:aws:iam::111122223333:role/prod-gpu-node".into(),
                "arn:aws:iam::111122223333:role/prod-system-node".into(),
            ],
            oidc_issuer: "https://oidc.eks.us-east-1.amazonaws.com/id/ABC".into(),
            status: "ACTIVE".into(),
        };
        assert_eq!(
            table(&facts, Style::PLAIN),
            "\
cluster          prod
status           ACTIVE
version          1.34
endpoint         https://ABC.gr7.us-east-1.eks.amazonaws.com
CA               LS0t
cluster role     arn:aws:iam::111122223333:role/prod-cluster
node roles       arn:aws:iam::111122223333:role/prod-gpu-node
                 arn:aws:iam::111122223333:role/prod-system-node
service CIDR     172.20.0.0/16
security group   sg-1
VPC              vpc-1
OIDC issuer      https://oidc.eks.us-east-1.amazonaws.com/id/ABC"
        );
    }
}
