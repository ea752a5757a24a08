//! What a node may do on AWS, beyond the managed policies: its own report, its own tag, the facts
//! that its gates read, and the agent's tarball. Nothing else.

use contract::names::{
    CONTROL_PREFIX, PARAMETER_TAG_INSTANCE, REPORT_PREFIX, TAG_JOIN, evidence_key,
};
use serde_json::{Value, json};

use crate::stack::Scope;

/// The policy of a node role; `object` is the ARN of the published tarball, `bucket` the name of the
/// bucket for evidence.
///
/// A report is bound to the instance that made it by a tag: parameter names cannot hold the
/// instance's ARN. `ec2:SourceInstanceARN` is in every call that is signed with an instance's role
/// (`docs.aws.amazon.com/IAM`, global condition context keys).
#[must_use]
pub fn node(scope: &Scope, object: Option<&str>, bucket: Option<&str>) -> Value {
    let Scope { fleet, account, region, partition } = scope;
    let arn = |service: &str, resource: &str| {
        format!("arn:{}:{service}:{region}:{account}:{resource}", partition.name)
    };
    let reports = arn("ssm", &format!("parameter{REPORT_PREFIX}/{fleet}/*"));
    let requested = format!("aws:RequestTag/{PARAMETER_TAG_INSTANCE}");
    let present = format!("aws:ResourceTag/{PARAMETER_TAG_INSTANCE}");
    let myself = "${ec2:SourceInstanceARN}";
    let mut statements = vec![
        json!({
            "Sid": "CreateOwnReport", "Effect": "Allow",
            "Action": ["ssm:PutParameter", "ssm:AddTagsToResource"],
            "Resource": reports,
            "Condition": {
                "StringEquals": {&requested: myself},
                "StringEqualsIfExists": {&present: myself},
                "Null": {"ec2:SourceInstanceARN": "false"},
            },
        }),
        json!({
            "Sid": "ChangeOwnReport", "Effect": "Allow",
            "Action": ["ssm:PutParameter", "ssm:DeleteParameter"],
            "Resource": reports,
            "Condition": {"StringEquals": {&present: myself}},
        }),
        json!({
            "Sid": "TagSelf", "Effect": "Allow", "Action": "ec2:CreateTags",
            "Resource": arn("ec2", "instance/*"),
            "Condition": {
                "StringEquals": {"aws:ARN": myself},
                "ForAllValues:StringEquals": {"aws:TagKeys": [TAG_JOIN]},
            },
        }),
        json!({
            "Sid": "ReadPolicy", "Effect": "Allow", "Action": "ssm:GetParameter",
            "Resource": arn("ssm", &format!("parameter{CONTROL_PREFIX}/{fleet}/*/policy")),
        }),
        json!({
            "Sid": "ReadCluster", "Effect": "Allow",
            "Action": ["eks:DescribeCluster", "eks:DescribeAddon"],
            "Resource": [
                arn("eks", &format!("cluster/{fleet}")),
                arn("eks", &format!("addon/{fleet}/*")),
            ],
        }),
        // This action knows no resources (service authorization reference, EC2).
        json!({
            "Sid": "ReadSubnets", "Effect": "Allow", "Action": "ec2:DescribeSubnets",
            "Resource": "*",
        }),
    ];
    if let Some(object) = object {
        statements.push(json!({
            "Sid": "FetchAgent", "Effect": "Allow", "Action": "s3:GetObject", "Resource": object,
        }));
    }
    if let Some(bucket) = bucket {
        let own = evidence_key(fleet, myself, "*");
        statements.push(json!({
            "Sid": "LeaveEvidence", "Effect": "Allow", "Action": "s3:PutObject",
            "Resource": format!("arn:{}:s3:::{bucket}/{own}", partition.name),
        }));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_no_other_parameter_and_no_other_object() {
        let policy = node(&Scope::example(), Some("arn:aws:s3:::b/agent/ab.tar.gz"), Some("ours"));
        let statements = policy["Statement"].as_array().unwrap();
        let of = |action: &str| -> Vec<&Value> {
            let names = |s: &&Value| s["Action"].to_string().contains(&format!("\"{action}\""));
            statements.iter().filter(names).collect()
        };
        assert_eq!(of("s3:GetObject")[0]["Resource"], "arn:aws:s3:::b/agent/ab.tar.gz");
        assert_eq!(
            of("s3:PutObject")[0]["Resource"],
            "arn:aws:s3:::ours/evidence/prod/${ec2:SourceInstanceARN}/*"
        );
        assert_eq!(
            of("ssm:GetParameter")[0]["Resource"],
            "arn:aws:ssm:eu-west-1:111122223333:parameter/rollcall-control/prod/*/policy"
        );
        for statement in of("ssm:PutParameter") {
            let bound = statement["Condition"]["StringEquals"].to_string();
            assert!(bound.contains("ec2:SourceInstanceARN"), "{statement:#}");
        }
        assert!(policy.to_string().len() < 10_240, "IAM's limit on a role's inline policies");
    }

    #[test]
    fn without_a_published_agent_there_is_no_object_to_read() {
        assert!(!node(&Scope::example(), None, None).to_string().contains("s3:"));
    }
}
