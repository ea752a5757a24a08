//! `control render`: what `up` would hand to nodes, to look at beforehand. Touches nothing.

use contract::ExitCode;

use crate::aws::eks::ClusterFacts;
use crate::cli::{RenderCommand, RenderUserData};
use crate::commands::{Context, session};
use crate::failure::Stated;
use crate::layers::pools;
use crate::output::Style;
use crate::output::progress::Progress;
use crate::output::text::{shorten, wrap};
use crate::stack::world::{IdentityGiven, NetworkGiven};
use crate::stack::{Given, driver};
use crate::user_data::explain::{explain, size};

/// In place of a value that only the built cluster has.
const LATER: &str = "(known after: cluster)";
/// Width of a value on 80 columns.
const VALUE_WIDTH: usize = 40;

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, what could not be read, or user data that is larger than EC2 takes.
pub async fn run(command: &RenderCommand, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let RenderCommand::UserData(args) = command;
    let (pool, text) = user_data(args, context).await?;
    let printer = context.printer;
    printer.line(match args.explain {
        true => explained(&pool, &text, printer.data_style()),
        false => text.trim_end_matches('\n').to_owned(),
    });
    Ok(ExitCode::Success)
}

async fn user_data(
    args: &RenderUserData,
    context: &Context<'_>,
) -> anyhow::Result<(String, String)> {
    let mut spec = session::spec(&args.fleet)?;
    let names: Vec<String> = spec.pools.iter().map(|pool| pool.name.clone()).collect();
    spec.pools.retain(|pool| pool.name == args.pool);
    let Some(layer) = spec.pools.first().map(|pool| pool.class.layer()) else {
        let message = format!("the fleet file has no pool `{}`", args.pool);
        let hint = format!("it has {}", names.join(", "));
        return Err(Stated::new(ExitCode::Usage, message).with_hint(hint).into());
    };
    let clients = session::clients(&spec, context).await?;
    let world = session::world(clients, &spec.name, Progress::silent()).await?;
    let inputs = session::inputs(&world, spec, args.agent_tarball.as_deref()).await?;
    let mut inputs = driver::given(&world, inputs, layer).await?;
    stand_in(&mut inputs.given, &world.scope.fleet, &world.scope.region);
    let facts = pools::observe::observe(&world, layer, Some(&inputs)).await?;
    let wishes = pools::desired::desired(&inputs, layer, &facts)?;
    let made = wishes.into_iter().next().and_then(|wish| wish.made);
    let made = made.ok_or_else(|| {
        let message =
            format!("the user data of `{}` is not known before the fleet stands", args.pool);
        Stated::new(ExitCode::Error, message)
            .with_hint("control up --through cluster builds enough")
    })?;
    Ok((args.pool.clone(), made.data.user_data))
}

/// Puts words in place of what the layers below have not given yet.
fn stand_in(given: &mut Given, fleet: &str, region: &str) {
    let later = || LATER.to_owned();
    given.network.get_or_insert_with(NetworkGiven::default);
    given.identity.get_or_insert_with(|| IdentityGiven {
        cluster_role: later(),
        system_node_role: later(),
        gpu_node_role: later(),
    });
    given.cluster.get_or_insert_with(|| ClusterFacts {
        name: fleet.to_owned(),
        region: region.to_owned(),
        arn: later(),
        endpoint: later(),
        certificate_authority: later(),
        version: String::new(),
        service_cidr: later(),
        security_group: later(),
        vpc: later(),
        cluster_role_arn: later(),
        node_role_arns: Vec::new(),
        oidc_issuer: later(),
        status: String::new(),
    });
}

fn explained(pool: &str, text: &str, style: Style) -> String {
    let parts = explain(text);
    let mut out = format!("{} · {} parts · {}\n", style.bold(pool), parts.len(), size(text));
    for (index, part) in parts.iter().enumerate() {
        let about = wrap(part.about, 2, 80);
        out.push_str(&format!(
            "\n{} {}\n{}\n",
            index + 1,
            style.bold(&part.media_type),
            style.dim(about)
        ));
        for (path, value, source) in &part.values {
            let value = shorten(value, VALUE_WIDTH);
            out.push_str(&format!("    {}: {value}\n", style.cyan(path)));
            out.push_str(&format!("{}\n", style.dim(wrap(source, 8, 80))));
        }
    }
    out.trim_end().to_owned()
}
