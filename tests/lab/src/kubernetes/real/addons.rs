//! Add-ons as real workloads in the real API server: applied when the add-on is created, removed
//! with it.

use std::collections::BTreeMap;

use super::api::{Api, ApiError};
use crate::kubernetes::addons::{Form, KNOWN, Known, NAMESPACE};
use crate::kubernetes::world::Addon;

/// What has been applied, so that a pass without a change asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Applied(BTreeMap<&'static str, Option<String>>);

impl Applied {
    /// Brings the workloads into line with the add-ons.
    pub(super) async fn reconcile(&mut self, api: &Api, addons: &[Addon]) -> Result<(), ApiError> {
        for known in KNOWN {
            match (known.wanted(addons), self.0.get(known.addon)) {
                (Some(addon), Some(version)) if *version == addon.version => {}
                (Some(addon), _) => {
                    let [account, workload] = known.manifests(addon.version.as_deref());
                    api.apply(&account_path(known), &account).await?;
                    api.apply(&workload_path(known), &workload).await?;
                    self.0.insert(known.addon, addon.version.clone());
                }
                (None, Some(_)) => {
                    api.delete(&workload_path(known)).await?;
                    api.delete(&account_path(known)).await?;
                    self.0.remove(known.addon);
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}

fn account_path(known: &Known) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{}", known.workload)
}

fn workload_path(known: &Known) -> String {
    let resource = match known.form {
        Form::Daemon => "daemonsets",
        Form::Dns => "deployments",
    };
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/{resource}/{}", known.workload)
}
