//! The launch template's data, for every launch path: one builder that knows what each refuses. Pure.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    CapacityReservationTarget, LaunchTemplateBlockDeviceMappingRequest,
    LaunchTemplateCapacityReservationSpecificationRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMarketOptionsRequest,
    LaunchTemplateInstanceMetadataEndpointState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest, LaunchTemplatePlacementRequest,
    LaunchTemplateTagSpecificationRequest, MarketType, RequestLaunchTemplateData, ResourceType,
    VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::aws::ec2;
use crate::launch::interfaces::Interface;

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
    /// Interfaces of nodes with EFA; empty: the one that EC2 gives every instance.
    pub interfaces: Vec<Interface>,
    /// Name of the placement group.
    pub placement_group: Option<String>,
    /// The reservation that instances go into.
    pub reservation: Option<Reservation>,
    /// Tags of instances, their volumes and their network interfaces.
    pub tags: BTreeMap<String, String>,
}

/// A reservation that instances go into, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reservation {
    /// Its id.
    pub id: String,
    /// Whether it is a capacity block, which is a market of its own.
    pub block: bool,
}

impl Reservation {
    fn specification(&self) -> LaunchTemplateCapacityReservationSpecificationRequest {
        let target = CapacityReservationTarget::builder().capacity_reservation_id(&self.id).build();
        LaunchTemplateCapacityReservationSpecificationRequest::builder()
            .capacity_reservation_target(target)
            .build()
    }

    fn market(&self) -> Option<LaunchTemplateInstanceMarketOptionsRequest> {
        let block = LaunchTemplateInstanceMarketOptionsRequest::builder()
            .market_type(MarketType::CapacityBlock)
            .build();
        self.block.then_some(block)
    }
}

impl TemplateData {
    /// EC2's form of it. Sent whole every time: a version's source is not merged.
    #[must_use]
    pub fn request(&self) -> RequestLaunchTemplateData {
        RequestLaunchTemplateData::builder()
            .image_id(&self.image)
            .instance_type(self.instance_type.as_str().into())
            .set_security_group_ids(self.instance_groups())
            .set_network_interfaces(self.network_interfaces())
            .set_placement(
                self.placement_group
                    .as_ref()
                    .map(|name| LaunchTemplatePlacementRequest::builder().group_name(name).build()),
            )
            .set_capacity_reservation_specification(
                self.reservation.as_ref().map(Reservation::specification),
            )
            .set_instance_market_options(self.reservation.as_ref().and_then(Reservation::market))
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

    /// EC2 takes security groups either here or at every interface.
    fn instance_groups(&self) -> Option<Vec<String>> {
        self.interfaces.is_empty().then(|| self.security_groups.clone())
    }

    fn network_interfaces(
        &self,
    ) -> Option<Vec<LaunchTemplateInstanceNetworkInterfaceSpecificationRequest>> {
        let number = |index: u32| i32::try_from(index).unwrap_or(i32::MAX);
        let request = |one: &Interface| {
            LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
                .network_card_index(number(one.card))
                .device_index(number(one.device))
                .interface_type(one.kind.label())
                .set_groups(Some(self.security_groups.clone()))
                .delete_on_termination(true)
                .build()
        };
        (!self.interfaces.is_empty()).then(|| self.interfaces.iter().map(request).collect())
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
            interfaces: Vec::new(),
            placement_group: None,
            reservation: None,
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
    fn nodes_with_efa_have_their_groups_at_every_interface() {
        use crate::launch::interfaces::InterfaceKind::{Efa, EfaOnly};
        let mut data = data();
        data.interfaces = vec![
            Interface { card: 0, device: 0, kind: Efa },
            Interface { card: 1, device: 1, kind: EfaOnly },
        ];
        let request = data.request();
        assert!(request.security_group_ids().is_empty(), "EC2 refuses both");
        let made: Vec<_> = request
            .network_interfaces()
            .iter()
            .map(|one| (one.network_card_index(), one.device_index(), one.interface_type()))
            .collect();
        let expected = [(Some(0), Some(0), Some("efa")), (Some(1), Some(1), Some("efa-only"))];
        assert_eq!(made, expected);
        for one in request.network_interfaces() {
            assert_eq!(
                (one.groups(), one.delete_on_termination()),
                (&data.security_groups[..], Some(true))
            );
            assert!(one.subnet_id().is_none() && one.associate_public_ip_address().is_none());
        }
    }

    #[test]
    fn a_block_is_a_market_and_a_reservation_is_not() {
        for block in [false, true] {
            let mut data = data();
            data.reservation = Some(Reservation { id: "cr-1".into(), block });
            let request = data.request();
            let target = request.capacity_reservation_specification().unwrap();
            let target = target.capacity_reservation_target().unwrap();
            assert_eq!(target.capacity_reservation_id(), Some("cr-1"));
            let market = request.instance_market_options().and_then(|m| m.market_type());
            assert_eq!(market, block.then_some(&MarketType::CapacityBlock));
        }
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
