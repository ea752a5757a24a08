//! Puts objects into the cluster and takes them out: server-side apply under our own field manager,
//! and no mutating call where the object already is as asked.

use ::kube::Error as ClientError;
use ::kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use ::kube::core::GroupVersionKind;
use contract::StepOutcome;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::connect::{Cause, Cluster, KubeError};
use super::manifests::MANAGED_BY;

/// Whose fields they are, in the object's `managedFields`.
pub const FIELD_MANAGER: &str = "rollcall";
/// Annotation with the hash of the manifest that an object was made from: a field that a newer
/// version no longer sets would otherwise go unnoticed.
pub const SPEC_ANNOTATION: &str = "rollcall.dev/spec";

/// How an object in the cluster stands to the one that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not exist.
    Absent,
    /// It is as asked.
    AsAsked,
    /// It is ours and differs.
    Differs,
    /// It exists, and somebody else made it.
    Foreign,
}

impl Cluster {
    /// Whether the object exists as the manifest asks. Reads only.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn is_applied(&self, manifest: &Value) -> Result<bool, KubeError> {
        Ok(self.observe(manifest).await? == Standing::AsAsked)
    }

    /// How the object in the cluster stands to the manifest. Reads only.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn observe(&self, manifest: &Value) -> Result<Standing, KubeError> {
        let target = self.target(manifest)?;
        let live = self
            .call(&format!("read {}", target.label), async |client| {
                target.api(client).get_opt(&target.name).await
            })
            .await?;
        let live = live.map(|object| serde_json::to_value(object).unwrap_or_default());
        Ok(standing(live.as_ref(), manifest))
    }

    /// Makes the object as the manifest asks; Unchanged, and no mutating call, when it is so already.
    ///
    /// An object of the same name that somebody else made is taken over: its name was asked for.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn apply(&self, manifest: &Value) -> Result<StepOutcome, KubeError> {
        if self.is_applied(manifest).await? {
            return Ok(StepOutcome::Unchanged);
        }
        let target = self.target(manifest)?;
        let wanted = with_annotation(manifest);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.call(&format!("apply {}", target.label), async |client| {
            target.api(client).patch(&target.name, &parameters, &Patch::Apply(&wanted)).await
        })
        .await?;
        Ok(StepOutcome::Done)
    }

    /// Deletes the object; what is already gone is Unchanged, what is not ours is left alone.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn remove(&self, manifest: &Value) -> Result<StepOutcome, KubeError> {
        let target = self.target(manifest)?;
        match self.observe(manifest).await? {
            Standing::Absent => return Ok(StepOutcome::Unchanged),
            Standing::Foreign => {
                return Ok(StepOutcome::Skipped(format!("{} is not ours", target.label)));
            }
            Standing::AsAsked | Standing::Differs => {}
        }
        let deleted = self
            .call(&format!("delete {}", target.label), async |client| {
                let answer =
                    target.api(client).delete(&target.name, &DeleteParams::default()).await;
                match answer {
                    Ok(_) => Ok(true),
                    Err(ClientError::Api(status)) if status.is_not_found() => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(if deleted { StepOutcome::Done } else { StepOutcome::Unchanged })
    }

    fn target(&self, manifest: &Value) -> Result<Target, KubeError> {
        Target::of(manifest).ok_or_else(|| KubeError {
            attempt: "place an object".into(),
            cluster: self.name().to_owned(),
            cause: Box::new(Cause::Broken(
                "the manifest has no apiVersion, kind or metadata.name".into(),
            )),
        })
    }
}

/// Where a manifest's object lives.
struct Target {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
    label: String,
}

impl Target {
    fn of(manifest: &Value) -> Option<Self> {
        let api_version = manifest["apiVersion"].as_str()?;
        let kind = manifest["kind"].as_str()?;
        let name = manifest["metadata"]["name"].as_str()?.to_owned();
        let namespace = manifest["metadata"]["namespace"].as_str().map(str::to_owned);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let place = namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        Some(Self {
            resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)),
            label: format!("{kind} `{place}{name}`"),
            namespace,
            name,
        })
    }

    fn api(&self, client: ::kube::Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

/// How `live` stands to what the manifest asks.
fn standing(live: Option<&Value>, manifest: &Value) -> Standing {
    let Some(live) = live else { return Standing::Absent };
    let metadata = &live["metadata"];
    if metadata["labels"][MANAGED_BY.0] != MANAGED_BY.1 {
        return Standing::Foreign;
    }
    let same_hash = metadata["annotations"][SPEC_ANNOTATION] == spec_hash(manifest);
    if same_hash && contains(live, manifest) { Standing::AsAsked } else { Standing::Differs }
}

/// Whether `live` says all that `wanted` says; a server adds defaults, which are no difference.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|live| contains(live, value))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| contains(l, w))
        }
        (live, wanted) => live == wanted,
    }
}

fn spec_hash(manifest: &Value) -> String {
    // The value's own order of keys is the order in which our code wrote them: stable.
    let digest = Sha256::digest(manifest.to_string().as_bytes());
    hex::encode(&digest[..8])
}

fn with_annotation(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    let annotations = &mut object["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[SPEC_ANNOTATION] = spec_hash(manifest).into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::manifests;

    fn served(manifest: &Value) -> Value {
        // What a server sends back: the object with defaults, status and bookkeeping.
        let mut live = with_annotation(manifest);
        live["metadata"]["uid"] = "1".into();
        live["metadata"]["managedFields"] = json!([{}]);
        live["spec"]["revisionHistoryLimit"] = 10.into();
        live["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst".into();
        live["status"] = json!({"numberReady": 0});
        live
    }

    #[test]
    fn defaults_and_status_are_no_difference() {
        let manifest = &manifests::device_plugin(None)[0];
        assert_eq!(standing(None, manifest), Standing::Absent);
        assert_eq!(standing(Some(&served(manifest)), manifest), Standing::AsAsked);
    }

    #[test]
    fn a_change_by_hand_is_seen() {
        let manifest = &manifests::device_plugin(None)[0];
        let mut live = served(manifest);
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "elsewhere/plugin:v1".into();
        assert_eq!(standing(Some(&live), manifest), Standing::Differs);
        let mut live = served(manifest);
        live["spec"]["template"]["spec"]["tolerations"] = json!([]);
        assert_eq!(standing(Some(&live), manifest), Standing::Differs);
    }

    #[test]
    fn an_object_of_another_version_of_ours_is_seen() {
        let manifest = &manifests::device_plugin(None)[0];
        let mut live = served(manifest);
        live["metadata"]["annotations"][SPEC_ANNOTATION] = "0123456789abcdef".into();
        assert_eq!(standing(Some(&live), manifest), Standing::Differs);
    }

    #[test]
    fn what_others_made_is_foreign() {
        let manifest = &manifests::device_plugin(None)[0];
        let mut live = served(manifest);
        live["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
        assert_eq!(standing(Some(&live), manifest), Standing::Foreign);
        assert_eq!(standing(Some(&json!({"metadata": {}})), manifest), Standing::Foreign);
    }

    #[test]
    fn objects_are_placed_by_their_kind() {
        let role = &manifests::node_reader();
        let target = Target::of(&role[0]).unwrap();
        assert_eq!((target.resource.plural.as_str(), target.namespace), ("clusterroles", None));
        let target = Target::of(&role[1]).unwrap();
        assert_eq!(target.resource.plural, "rolebindings");
        assert_eq!(target.label, "RoleBinding `kube-system/rollcall-node`");
        let target = Target::of(&manifests::device_plugin(None)[0]).unwrap();
        assert_eq!(
            (target.resource.group.as_str(), target.resource.plural.as_str()),
            ("apps", "daemonsets")
        );
        assert!(Target::of(&json!({"kind": "X"})).is_none());
    }

    #[test]
    fn the_hash_follows_the_manifest() {
        let manifest = manifests::device_plugin(None).remove(0);
        let mut other = manifest.clone();
        other["spec"]["template"]["spec"]["priorityClassName"] = "x".into();
        assert_ne!(spec_hash(&manifest), spec_hash(&other));
        assert_eq!(spec_hash(&manifest), spec_hash(&manifests::device_plugin(None)[0]));
    }
}
