//! Makes and removes launch templates and node groups; create stands beside delete.

use aws_sdk_ec2::types::ResourceType;
use contract::StepOutcome;

use crate::aws::ec2::tagged;
use crate::aws::tagging;
use crate::aws::{Attempted as _, AwsError};
use crate::launch::managed::{self, GroupFact, GroupTags};
use crate::launch::placement;
use crate::layers::names::spec_hash;
use crate::layers::pools::desired::{Made, PoolWish};
use crate::layers::pools::observe::{PoolsFacts, TemplateFact, description};
use crate::layers::pools::plan::Op;
use crate::layers::pools::roll;
use crate::stack::{Applied, Layer, StackError, World};

type Done = Result<Applied<PoolsFacts>, StackError>;

/// Does one step.
///
/// # Errors
/// AWS's refusal, or a layer below that is not built.
pub async fn apply(world: &World, layer: Layer, op: &Op, facts: &PoolsFacts) -> Done {
    match op {
        Op::CreatePlacement(name, tags) => {
            let outcome = placement::create(world, name, tags).await?;
            let name = name.clone();
            let learn = move |facts: &mut PoolsFacts| facts.placement_groups.push(name);
            Ok(Applied { outcome, learn: Box::new(learn) })
        }
        Op::RetirePlacement(name) => Ok(Applied::ended(placement::retire(world, name).await?)),
        Op::DeletePlacement(name) => Ok(Applied::ended(placement::delete(world, name).await?)),
        Op::CreateTemplate(wish) => create_template(world, wish, made(layer, wish)?).await,
        Op::NewVersion(wish) => new_version(world, layer, wish, facts).await,
        Op::CreateGroup(wish) => create_group(world, layer, wish, facts).await,
        Op::RecreateGroup(wish) => {
            managed::delete(world, layer, &world.scope.fleet, &wish.name).await?;
            create_group(world, layer, wish, facts).await
        }
        Op::Resize(wish) => {
            let made = made(layer, wish)?;
            let size = made.group.size;
            managed::resize(&world.clients, &made.group.cluster, &wish.name, size).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::Roll(wish) => {
            let fact = template(layer, wish, facts)?;
            let to = (fact.id.as_str(), fact.version.as_str());
            let nodes = made(layer, wish)?.group.size.desired;
            Ok(Applied::ended(roll::roll(world, layer, &wish.name, to, nodes).await?))
        }
        Op::Tag(holder, tags) => {
            tagging::put(&world.clients, holder, tags).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::DeleteGroup(name) => {
            managed::delete(world, layer, &world.scope.fleet, name).await?;
            let name = name.clone();
            Ok(Applied::done(move |facts: &mut PoolsFacts| {
                facts.groups.retain(|group| group.name != name);
            }))
        }
        Op::DeleteTemplate(id) => delete_template(world, id).await,
    }
}

fn made(layer: Layer, wish: &PoolWish) -> Result<&Made, StackError> {
    let missing = "an ACTIVE cluster, private subnets and the node role";
    wish.made.as_ref().ok_or(StackError::Missing { layer, missing })
}

fn template<'a>(
    layer: Layer,
    wish: &PoolWish,
    facts: &'a PoolsFacts,
) -> Result<&'a TemplateFact, StackError> {
    let fact = facts.templates.iter().find(|fact| fact.name == wish.template);
    fact.ok_or(StackError::Missing { layer, missing: "its launch template" })
}

async fn create_template(world: &World, wish: &PoolWish, made: &Made) -> Done {
    let name = &wish.template;
    let ec2 = &world.clients.ec2;
    let call = ec2.create_launch_template().launch_template_name(name);
    let call = call.version_description(description(&made.spec));
    let call = call.launch_template_data(made.data.request());
    let call = call.tag_specifications(tagged(ResourceType::LaunchTemplate, &wish.template_tags));
    let call = call.client_token(spec_hash(&["template", name, &made.spec]));
    let answer = call.send().await.attempted(|| format!("create the launch template `{name}`"));
    let (outcome, id) = match answer {
        Ok(answer) => {
            let template = answer.launch_template;
            (StepOutcome::Done, template.and_then(|template| template.launch_template_id))
        }
        // Our own call whose answer was lost: the name is ours alone.
        Err(error) if error.code() == Some("InvalidLaunchTemplateName.AlreadyExistsException") => {
            let found = ec2.describe_launch_templates().launch_template_names(name).send().await;
            let found = found.attempted(|| format!("describe the launch template `{name}`"))?;
            let id = found.launch_templates().first().and_then(|t| t.launch_template_id());
            (StepOutcome::Unchanged, id.map(str::to_owned))
        }
        Err(error) => return Err(error.into()),
    };
    let Some(id) = id else {
        let attempted = format!("create the launch template `{name}`");
        return Err(AwsError::Incomplete { attempted, missing: "id" }.into());
    };
    let fact = TemplateFact {
        id,
        name: name.clone(),
        pool: wish.name.clone(),
        version: "1".into(),
        spec: description(&made.spec),
        image: made.data.image.clone(),
        instance_type: made.data.instance_type.clone(),
        tags: wish.template_tags.clone(),
        launched: made.data.tags.clone(),
    };
    let learn = move |facts: &mut PoolsFacts| facts.templates.push(fact);
    Ok(Applied { outcome, learn: Box::new(learn) })
}

async fn new_version(world: &World, layer: Layer, wish: &PoolWish, facts: &PoolsFacts) -> Done {
    let made = made(layer, wish)?;
    let id = &template(layer, wish, facts)?.id;
    let what = || format!("make a new version of the launch template `{}`", wish.template);
    let call = world.clients.ec2.create_launch_template_version().launch_template_id(id);
    let call = call.version_description(description(&made.spec));
    let call = call.launch_template_data(made.data.request());
    // The template's version at the time is part of the token: to come back to an earlier
    // specification is a new request.
    let before = &template(layer, wish, facts)?.version;
    let call = call.client_token(spec_hash(&["version", id, before, &made.spec]));
    let answer = call.send().await.attempted(what)?;
    let number = answer.launch_template_version.and_then(|version| version.version_number);
    let Some(number) = number else {
        return Err(AwsError::Incomplete { attempted: what(), missing: "version number" }.into());
    };
    let (name, spec) = (wish.template.clone(), description(&made.spec));
    Ok(Applied::done(move |facts: &mut PoolsFacts| {
        if let Some(fact) = facts.templates.iter_mut().find(|fact| fact.name == name) {
            (fact.version, fact.spec) = (number.to_string(), spec);
        }
    }))
}

async fn delete_template(world: &World, id: &str) -> Done {
    let call = world.clients.ec2.delete_launch_template().launch_template_id(id);
    match call.send().await.attempted(|| format!("delete the launch template `{id}`")) {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let id = id.to_owned();
    Ok(Applied::done(move |facts: &mut PoolsFacts| facts.templates.retain(|fact| fact.id != id)))
}

async fn create_group(world: &World, layer: Layer, wish: &PoolWish, facts: &PoolsFacts) -> Done {
    let fact = template(layer, wish, facts)?;
    let group = &made(layer, wish)?.group;
    let outcome = managed::create(world, group, (&fact.id, &fact.version)).await?;
    let fact = GroupFact {
        name: group.name.clone(),
        layer: layer.label().to_owned(),
        status: "CREATING".into(),
        size: group.size,
        template: Some((fact.id.clone(), fact.version.clone())),
        zones: group.subnets.len(),
        issues: Vec::new(),
        tagged: GroupTags::default(),
    };
    let learn = move |facts: &mut PoolsFacts| {
        facts.groups.retain(|group| group.name != fact.name);
        facts.groups.push(fact);
    };
    Ok(Applied { outcome, learn: Box::new(learn) })
}
