//! The launch template's data, for every launch path: one builder that knows what each refuses. Pure.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMetadataEndpointState,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateTagSpecificationRequest,
    RequestLaunchTemplateData, ResourceType, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::aws::ec2;

/// Root device of AL2023 images.
const ROOT_DEVICE: &str = "/dev/xvda";

/// What starts instances from a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaunchPath {
    /// An EKS managed node group. Its template carries no instance profile, no subnets, no market
    /// options and no shutdown behaviour (`docs.aws.amazon.com/eks`, "Customize managed nodes with
    /// launch templates"): the group itself says these.
    ManagedNodeGroup,
}

/// A launch template's data, as we mean it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateData {
    /// Who starts instances from it.
    pub path: LaunchPath,
    /// Image id. Always named, so that EKS merges nothing into the user data.
    pub image: String,
    /// Instance type.
    pub instance_type: String,
    /// Security groups: EKS adds none of its own where a template names some.
    pub security_groups: Vec<String>,
    /// MIME user data, not yet base64.
    pub user_data: String,
    /// Size of the root volume in GiB.
    pub volume_gib: u32,
    /// Tags of instances, their volumes and their network interfaces.
    pub tags: BTreeMap<String, String>,
}

impl TemplateData {
    /// EC2's form of it. Sent whole every time: a version's source is not merged.
    #[must_use]
    pub fn request(&self) -> RequestLaunchTemplateData {
        RequestLaunchTemplateData::builder()
            .image_id(&self.image)
            .instance_type(self.instance_type.as_str().into())
            .set_security_group_ids(Some(self.security_groups.clone()))
            .user_data(STANDARD.encode(&self.user_data))
            .metadata_options(metadata_options())
            .block_device_mappings(root_volume(self.volume_gib))
            .set_tag_specifications(Some(
                [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface]
                    .map(|kind| {
                        LaunchTemplateTagSpecificationRequest::builder()
                            .resource_type(kind)
                            .set_tags(Some(ec2::tags(&self.tags)))
                            .build()
                    })
                    .into(),
            ))
            .build()
    }
}

/// IMDSv2 alone, and not from inside pods: whoever has the role could write reports.
fn metadata_options() -> LaunchTemplateInstanceMetadataOptionsRequest {
    LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
        .http_tokens(LaunchTemplateHttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .build()
}

/// Encrypted, and gone with its instance.
fn root_volume(gib: u32) -> LaunchTemplateBlockDeviceMappingRequest {
    let volume = LaunchTemplateEbsBlockDeviceRequest::builder()
        .volume_type(VolumeType::Gp3)
        .volume_size(i32::try_from(gib).unwrap_or(i32::MAX))
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    LaunchTemplateBlockDeviceMappingRequest::builder().device_name(ROOT_DEVICE).ebs(volume).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> TemplateData {
        TemplateData {
            path: LaunchPath::ManagedNodeGroup,
            image: "ami-1".into(),
            instance_type: "p5.48xlarge".into(),
            security_groups: vec!["sg-1".into()],
            user_data: "MIME-Version: 1.0\n".into(),
            volume_gib: 200,
            tags: BTreeMap::from([("rollcall:pool".into(), "h100".into())]),
        }
    }

    #[test]
    fn the_settings_that_no_template_goes_without() {
        let request = data().request();
        let metadata = request.metadata_options().unwrap();
        assert_eq!(metadata.http_tokens(), Some(&LaunchTemplateHttpTokensState::Required));
        assert_eq!(metadata.http_put_response_hop_limit(), Some(1));
        let volume = request.block_device_mappings()[0].ebs().unwrap();
        assert_eq!(volume.encrypted(), Some(true));
        assert_eq!(volume.delete_on_termination(), Some(true));
        let tagged: Vec<_> =
            request.tag_specifications().iter().map(|t| t.resource_type().unwrap()).collect();
        assert_eq!(
            tagged,
            [&ResourceType::Instance, &ResourceType::Volume, &ResourceType::NetworkInterface]
        );
        assert_eq!(request.user_data(), Some("TUlNRS1WZXJzaW9uOiAxLjAK"));
    }

    #[test]
    fn what_a_managed_group_refuses_is_not_in_it() {
        let request = data().request();
        assert!(request.iam_instance_profile().is_none());
        assert!(request.network_interfaces().is_empty());
        assert!(request.instance_market_options().is_none());
        assert!(request.instance_initiated_shutdown_behavior().is_none());
        assert!(request.hibernation_options().is_none());
    }
}
