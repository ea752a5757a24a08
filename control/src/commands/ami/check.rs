//! `control ami check`: whether an image fits a fleet's pools, all that stands against it at once.

use anyhow::Context as _;
use contract::ExitCode;
use serde::Serialize;

use crate::ami::fit::{Misfit, Need, misfits};
use crate::aws::ec2;
use crate::cli::AmiCheck;
use crate::commands::ami::named;
use crate::commands::{Context, session};
use crate::config::FleetSpec;
use crate::failure::Stated;
use crate::output::Style;
use crate::output::text::wrap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    image: String,
    fits: bool,
    pools: Vec<OfPool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfPool {
    pool: String,
    instance_type: String,
    misfits: Vec<Misfit>,
}

/// Runs the verb. Ends with 3 where it does not fit.
///
/// # Errors
/// The fleet file's problems, or when there is no such image or pool.
pub async fn run(args: &AmiCheck, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let spec = session::spec(&args.fleet)?;
    let clients = session::clients(&spec, context).await?;
    let image = named(&clients, &args.image).await?;
    let meant = |name: &str| args.pool.as_deref().is_none_or(|pool| pool == name);
    let pools: Vec<_> = spec.pools.iter().filter(|pool| meant(&pool.name)).collect();
    if pools.is_empty() {
        return Err(no_such_pool(&spec, args.pool.as_deref().unwrap_or_default()).into());
    }
    let kinds: Vec<String> = pools.iter().map(|pool| pool.instance_type.clone()).collect();
    let types = ec2::instance_types(&clients, &kinds).await;
    let types = types.context("could not ask what the pools' instance types are")?;
    let of_pool = |pool: &&crate::config::spec::PoolSpec| OfPool {
        pool: pool.name.clone(),
        instance_type: pool.instance_type.clone(),
        misfits: misfits(&image, &Need::of(&spec, pool, types.get(&pool.instance_type))),
    };
    let pools: Vec<OfPool> = pools.iter().map(of_pool).collect();
    let fits = pools.iter().all(|pool| pool.misfits.is_empty());
    let checked = Checked { image: image.id.clone(), fits, pools };
    context.printer.data(args.output.output, &checked, table)?;
    Ok(if fits { ExitCode::Success } else { ExitCode::PreflightBlocked })
}

fn no_such_pool(spec: &FleetSpec, name: &str) -> Stated {
    let names: Vec<&str> = spec.pools.iter().map(|pool| pool.name.as_str()).collect();
    Stated::new(ExitCode::Usage, format!("the fleet has no pool `{name}`"))
        .with_hint(format!("its pools: {}", names.join(", ")))
}

fn table(checked: &Checked, style: Style) -> String {
    let width = checked.pools.iter().map(|pool| pool.pool.len()).max().unwrap_or(0);
    let mut lines = vec![style.cyan(&checked.image)];
    for pool in &checked.pools {
        let mark = if pool.misfits.is_empty() { style.green("✓") } else { style.red("✗") };
        lines.push(format!("  {mark} {:width$}  {}", pool.pool, style.dim(&pool.instance_type)));
        for misfit in &pool.misfits {
            lines.push(wrap(&format!("{}: {}", misfit.field(), misfit.message), 6, 80));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ami::fit::Rule;

    #[test]
    fn pools_stand_with_what_stands_against_them() {
        let of = |pool: &str, misfits| OfPool {
            pool: pool.into(),
            instance_type: "p5.48xlarge".into(),
            misfits,
        };
        let message = "`ami-0123456789abcdef0` has Kubernetes 1.35, and the cluster 1.34: kubelet is never newer than the API server";
        let misfit = Misfit { rule: Rule::Kubernetes, message: message.into() };
        let pools = vec![of("system", vec![]), of("h100", vec![misfit])];
        let checked = Checked { image: "ami-0123456789abcdef0".into(), fits: false, pools };
        assert_eq!(
            table(&checked, Style::PLAIN),
            "\
ami-0123456789abcdef0
  ✓ system  p5.48xlarge
  ✗ h100    p5.48xlarge
      image: `ami-0123456789abcdef0` has Kubernetes 1.35, and the cluster 1.34:
      kubelet is never newer than the API server"
        );
    }
}
