//! What IMDS says under which path: a pure function of the instance.

use jiff::Timestamp;
use serde_json::json;

use crate::aws::Instance;

/// The metadata of one instance.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// The instance.
    pub instance: &'a Instance,
}

/// A time as IMDS prints it, to the second.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Node<'_> {
    /// The document at `path`; a path with a slash at its end, or one that others lie below, lists.
    #[must_use]
    pub fn get(self, path: &str) -> Option<String> {
        let path = path.strip_prefix("/latest/")?;
        if path == "dynamic/instance-identity/document" {
            return Some(self.identity_document());
        }
        if path.trim_end_matches('/') == "dynamic/instance-identity" {
            return Some("document".into());
        }
        let path = path.strip_prefix("meta-data")?.trim_start_matches('/');
        let entries = self.entries();
        let exact = entries.iter().find(|(name, _)| name == path);
        exact.map(|(_, value)| value.clone()).or_else(|| listing(&entries, path))
    }

    fn entries(self) -> Vec<(String, String)> {
        let instance = self.instance;
        let region = self.region();
        let mut entries: Vec<(String, String)> = [
            ("ami-id", instance.image_id.as_str()),
            ("autoscaling/target-lifecycle-state", "InService"),
            ("events/maintenance/scheduled", "[]"),
            ("events/maintenance/history", "[]"),
            ("hostname", &instance.private_dns_name),
            ("instance-id", &instance.instance_id),
            ("instance-life-cycle", "on-demand"),
            ("instance-type", &instance.instance_type),
            ("local-hostname", &instance.private_dns_name),
            ("local-ipv4", &instance.private_ip),
            ("mac", &instance.mac),
            ("placement/availability-zone", &instance.zone),
            ("placement/availability-zone-id", &instance.zone_id),
            ("placement/region", region),
            ("services/domain", "amazonaws.com"),
            ("services/partition", "aws"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        if let Some(key) = &instance.public_key {
            entries.push(("public-keys/0/openssh-key".into(), format!("{key}\n")));
        }
        entries.extend(self.interface());
        if let Some(role) = instance.role_name() {
            entries.push(("iam/info".into(), self.iam_info()));
            // Served by the credentials themselves; here it makes the listing.
            entries.push((format!("iam/security-credentials/{role}"), String::new()));
        }
        entries
    }

    fn interface(self) -> Vec<(String, String)> {
        let instance = self.instance;
        let base = format!("network/interfaces/macs/{}", instance.mac);
        [
            ("device-number", "0"),
            ("interface-id", &interface_id(&instance.instance_id)),
            ("local-hostname", &instance.private_dns_name),
            ("local-ipv4s", &instance.private_ip),
            ("mac", &instance.mac),
            ("owner-id", instance.account()),
            ("security-group-ids", &instance.security_groups.join("\n")),
            ("subnet-id", &instance.subnet_id),
            ("vpc-id", &instance.vpc_id),
        ]
        .into_iter()
        .map(|(name, value)| (format!("{base}/{name}"), value.to_owned()))
        .collect()
    }

    fn iam_info(self) -> String {
        json!({
            "Code": "Success",
            "LastUpdated": self.instance.launch_time,
            "InstanceProfileArn": self.instance.instance_profile_arn,
            "InstanceProfileId": "AIPAEXAMPLEOFTHELAB00",
        })
        .to_string()
    }

    fn identity_document(self) -> String {
        let instance = self.instance;
        let launched = instance.launch_time.parse::<Timestamp>();
        let document = json!({
            "accountId": instance.account(),
            "architecture": "x86_64",
            "availabilityZone": instance.zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": instance.image_id,
            "instanceId": instance.instance_id,
            "instanceType": instance.instance_type,
            "kernelId": null,
            "pendingTime": launched.map_or_else(|_| instance.launch_time.clone(), seconds),
            "privateIp": instance.private_ip,
            "ramdiskId": null,
            "region": self.region(),
            "version": "2017-09-30",
        });
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }

    /// The zone without its letter.
    fn region(&self) -> &str {
        self.instance.zone.trim_end_matches(|c: char| c.is_ascii_lowercase())
    }
}

/// EC2 gives the interface an id of its own; the control API does not say it.
fn interface_id(instance_id: &str) -> String {
    instance_id.replacen("i-", "eni-", 1)
}

/// What lies directly below `path`, a line each, directories with a slash.
fn listing(entries: &[(String, String)], path: &str) -> Option<String> {
    let prefix = match path.trim_end_matches('/') {
        "" => String::new(),
        bare => format!("{bare}/"),
    };
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|(name, _)| name.strip_prefix(&prefix))
        .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(dir, _)| format!("{dir}/")))
        .collect();
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n"))
}
