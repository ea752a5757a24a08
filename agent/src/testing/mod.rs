//! What the agent's own tests stand at its process boundaries: small servers and directories.

pub(crate) mod http;
pub(crate) mod tls;

use self::http::Answer;

/// The metadata service's answers of an instance with a role.
pub(crate) fn imds_answers(request: &str) -> Answer {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let value = match path.strip_prefix("/latest/").unwrap_or_default() {
        "api/token" => "T",
        "meta-data/iam/security-credentials/" => "node",
        "meta-data/iam/security-credentials/node" => {
            r#"{"Code":"Success","AccessKeyId":"ASIA1","SecretAccessKey":"s","Token":"t",
                "Expiration":"2099-01-01T00:00:00Z"}"#
        }
        "dynamic/instance-identity/document" => {
            r#"{"instanceId":"i-0abc","instanceType":"p5.48xlarge","availabilityZone":"us-east-1a",
                "region":"us-east-1","accountId":"123456789012","privateIp":"10.0.1.7",
                "imageId":"ami-1","pendingTime":"2026-11-20T20:00:00Z"}"#
        }
        "meta-data/local-hostname" => "ip-10-0-1-7.ec2.internal",
        _ => return Answer::status(404, ""),
    };
    Answer::ok(value)
}
