//! Whether the credentials may do what `up` and `down` do, as far as IAM's simulation tells. It knows
//! identity policies and boundaries, not the conditions of a call nor an organisation's own limits: so
//! what it misses is a doubt, and refuses nothing.

use aws_sdk_iam::types::PolicyEvaluationDecisionType;

use crate::aws::{Attempted as _, AwsError, Clients};

/// What `up` and `down` call, in IAM's words.
pub const ACTIONS: &[&str] = &[
    "autoscaling:DescribeScalingActivities",
    "ec2:AllocateAddress",
    "ec2:AssociateRouteTable",
    "ec2:AttachInternetGateway",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateInternetGateway",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:CreateNatGateway",
    "ec2:CreatePlacementGroup",
    "ec2:CreateRoute",
    "ec2:CreateRouteTable",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSubnet",
    "ec2:CreateTags",
    "ec2:CreateVpc",
    "ec2:CreateVpcEndpoint",
    "ec2:DeleteInternetGateway",
    "ec2:DeleteLaunchTemplate",
    "ec2:DeleteNatGateway",
    "ec2:DeleteNetworkInterface",
    "ec2:DeletePlacementGroup",
    "ec2:DeleteRouteTable",
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSubnet",
    "ec2:DeleteTags",
    "ec2:DeleteVpc",
    "ec2:DeleteVpcEndpoints",
    "ec2:DescribeInstances",
    "ec2:DetachInternetGateway",
    "ec2:DisassociateRouteTable",
    "ec2:GetConsoleOutput",
    "ec2:ModifyVpcAttribute",
    "ec2:ReleaseAddress",
    "ec2:RunInstances",
    "eks:CreateAddon",
    "eks:CreateCluster",
    "eks:CreateNodegroup",
    "eks:DeleteAddon",
    "eks:DeleteCluster",
    "eks:DeleteNodegroup",
    "eks:DescribeCluster",
    "eks:DescribeNodegroup",
    "eks:ListAccessEntries",
    "eks:TagResource",
    "eks:UpdateNodegroupConfig",
    "eks:UpdateNodegroupVersion",
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:GetRole",
    "iam:PassRole",
    "iam:PutRolePolicy",
    "iam:TagRole",
    "s3:CreateBucket",
    "s3:DeleteBucket",
    "s3:DeleteObject",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketTagging",
    "s3:PutObject",
    "ssm:DeleteParameters",
    "ssm:DescribeParameters",
    "ssm:GetParameter",
    "ssm:PutParameter",
];

/// Actions that IAM takes in one question (IAM API reference gives no number; it answers pages).
const CHUNK: usize = 50;

/// What the simulation said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionFacts {
    /// Whose policies were asked about; none when nobody could be asked.
    pub whose: Option<String>,
    /// The actions that it does not allow.
    pub denied: Vec<String>,
}

impl PermissionFacts {
    /// What is to be said of it, when anything is.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let whose = self.whose.as_ref().filter(|_| !self.denied.is_empty())?;
        Some(format!(
            "`{whose}` seems to lack {}; a policy for single resources or with conditions may still \
             allow it",
            self.denied.join(", ")
        ))
    }
}

/// Asks IAM about the policies of whoever the credentials are.
///
/// # Errors
/// When IAM does not answer; that it may not be asked is no error.
pub async fn look(clients: &Clients, caller: &str) -> Result<PermissionFacts, AwsError> {
    let Some(whose) = principal(clients, caller).await? else {
        return Ok(PermissionFacts::default());
    };
    let mut denied = Vec::new();
    for some in ACTIONS.chunks(CHUNK) {
        let call = clients.iam.simulate_principal_policy().policy_source_arn(&whose);
        let call = call.set_action_names(Some(some.iter().map(|one| (*one).to_owned()).collect()));
        let found = call.into_paginator().items().send().try_collect().await;
        let found = match found.attempted(|| format!("ask IAM what `{whose}` may do")) {
            Ok(found) => found,
            Err(error) if error.is_denied() || error.is_not_found() => {
                return Ok(PermissionFacts::default());
            }
            Err(error) => return Err(error),
        };
        let refused = |one: &&aws_sdk_iam::types::EvaluationResult| {
            *one.eval_decision() != PolicyEvaluationDecisionType::Allowed
        };
        denied.extend(found.iter().filter(refused).map(|one| one.eval_action_name().to_owned()));
    }
    Ok(PermissionFacts { whose: Some(whose), denied })
}

/// The user or role whose policies count; none for the account itself, which may do everything, and
/// for what IAM cannot be asked about.
async fn principal(clients: &Clients, caller: &str) -> Result<Option<String>, AwsError> {
    if caller.contains(":user/") {
        return Ok(Some(caller.to_owned()));
    }
    // `arn:aws:sts::111122223333:assumed-role/NAME/SESSION`; the role's path is not in it.
    let Some((_, session)) = caller.split_once(":assumed-role/") else { return Ok(None) };
    let name = session.split('/').next().unwrap_or(session);
    let role = clients.iam.get_role().role_name(name).send().await;
    match role.attempted(|| format!("read the role `{name}`")) {
        Ok(role) => Ok(role.role.map(|role| role.arn)),
        Err(error) if error.is_denied() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actions_are_in_order_and_none_is_there_twice() {
        assert!(ACTIONS.is_sorted() && ACTIONS.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ACTIONS.iter().all(|action| action.contains(':')));
    }

    #[test]
    fn what_seems_denied_is_a_doubt_and_what_is_not_known_is_none() {
        let facts = PermissionFacts {
            whose: Some("arn:aws:iam::111122223333:user/me".into()),
            denied: vec!["ec2:CreateNatGateway".into()],
        };
        assert!(facts.doubt().unwrap().contains("user/me` seems to lack ec2:CreateNatGateway;"));
        assert_eq!(PermissionFacts::default().doubt(), None);
        assert_eq!(PermissionFacts { denied: vec![], ..facts }.doubt(), None);
    }
}
