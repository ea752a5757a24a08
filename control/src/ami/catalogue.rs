//! What images there are, and what uses them, read from AWS.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Filter;
use contract::names::{TAG_FLEET, TAG_IMAGE};

use crate::ami::image::Image;
use crate::aws::ec2::{filter, tag_of};
use crate::aws::{Attempted as _, AwsError, Clients};

/// Where images come from that are ours to list: this account.
const OURS: &str = "self";

/// Images of this account that were baked from a definition, the newest first.
///
/// # Errors
/// When EC2 does not answer.
pub async fn baked(clients: &Clients) -> Result<Vec<Image>, AwsError> {
    let call = clients.ec2.describe_images().owners(OURS).filters(filter("tag-key", TAG_IMAGE));
    let found = call.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| "list the images that were baked".to_owned())?;
    let mut images: Vec<Image> = found.iter().map(Image::of).collect();
    images.sort_by(|a, b| (&b.created, &b.id).cmp(&(&a.created, &a.id)));
    Ok(images)
}

/// These images, by id; those that do not exist or may not be used are absent.
///
/// # Errors
/// When EC2 does not answer.
pub async fn named(
    clients: &Clients,
    ids: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Image>, AwsError> {
    let ids: BTreeSet<String> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    // By filter: one id that is unknown would refuse them all.
    let wanted = Filter::builder().name("image-id").set_values(Some(ids.into_iter().collect()));
    let call = clients.ec2.describe_images().filters(wanted.build());
    let found = call.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| "describe images".to_owned())?;
    Ok(found.iter().map(Image::of).map(|image| (image.id.clone(), image)).collect())
}

/// What boots an image, or may boot it: by image, for people.
pub type Uses = BTreeMap<String, Vec<String>>;

/// What uses images in this region: the newest and the default version of every launch template (of our
/// own the newest alone: node groups have copies of the version that they are at), and instances that
/// have not gone.
///
/// # Errors
/// When EC2 does not answer.
pub async fn uses(clients: &Clients) -> Result<Uses, AwsError> {
    let mut uses = Uses::new();
    let mut say = |image: &str, by: String| {
        let by_image = uses.entry(image.to_owned()).or_default();
        if !by_image.contains(&by) {
            by_image.push(by);
        }
    };
    let templates = clients.ec2.describe_launch_templates().into_paginator().items().send();
    let templates = templates.try_collect().await;
    for template in templates.attempted(|| "list the launch templates".to_owned())? {
        let Some(id) = template.launch_template_id() else { continue };
        let ours = tag_of(template.tags(), TAG_FLEET).is_some();
        let versions = if ours { &["$Latest"][..] } else { &["$Latest", "$Default"] };
        let call = clients.ec2.describe_launch_template_versions().launch_template_id(id);
        let call = call.set_versions(Some(versions.iter().map(|one| (*one).to_owned()).collect()));
        let versions = match call.send().await.attempted(|| format!("describe the template `{id}`"))
        {
            Ok(answer) => answer.launch_template_versions.unwrap_or_default(),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let name = template.launch_template_name().unwrap_or(id);
        for image in versions.iter().filter_map(|one| one.launch_template_data()?.image_id()) {
            say(image, format!("launch template {name}"));
        }
    }
    let living = ["pending", "running", "stopping", "stopped", "shutting-down"].map(str::to_owned);
    let living = Filter::builder().name("instance-state-name").set_values(Some(living.to_vec()));
    let call = clients.ec2.describe_instances().filters(living.build());
    let found = call.into_paginator().items().send().try_collect().await;
    for reservation in found.attempted(|| "list the instances".to_owned())? {
        for instance in reservation.instances() {
            if let (Some(image), Some(id)) = (instance.image_id(), instance.instance_id()) {
                say(image, format!("instance {id}"));
            }
        }
    }
    Ok(uses)
}
