//! What objects of the cluster hold of the account: load balancers and volumes.

use ::kube::Error as ClientError;
use ::kube::api::{Api, DeleteParams, ListParams};
use ::kube::{Client, Resource};
use k8s_openapi::api::core::v1::{PersistentVolume, Service};
use k8s_openapi::api::networking::v1::Ingress;
use serde::de::DeserializeOwned;

use super::connect::{Cause, Cluster, KubeError};

/// An object that a controller has made a load balancer for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    /// What it is.
    pub kind: FrontKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Kinds of objects that load balancers are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontKind {
    /// A Service of type LoadBalancer.
    Service,
    /// An Ingress that has an address.
    Ingress,
}

impl FrontKind {
    /// As Kubernetes writes it, in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Ingress => "ingress",
        }
    }
}

impl Cluster {
    /// The objects that have load balancers.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn fronts(&self) -> Result<Vec<Front>, KubeError> {
        let front =
            |kind, metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                Front { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
            };
        let services = self.everywhere::<Service>("services").await?;
        let balanced = |service: &&Service| {
            service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
        };
        let services = services.iter().filter(balanced);
        let mut fronts: Vec<_> =
            services.map(|service| front(FrontKind::Service, &service.metadata)).collect();
        let ingresses = self.everywhere::<Ingress>("ingresses").await?;
        let addressed = |ingress: &&Ingress| {
            let status = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            status.and_then(|s| s.ingress.as_ref()).is_some_and(|places| !places.is_empty())
        };
        let ingresses = ingresses.iter().filter(addressed);
        fronts.extend(ingresses.map(|ingress| front(FrontKind::Ingress, &ingress.metadata)));
        fronts.sort();
        Ok(fronts)
    }

    /// Ids of the EBS volumes whose PersistentVolume says that they are to stay.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn retained_volumes(&self) -> Result<Vec<String>, KubeError> {
        let volumes = self.everywhere::<PersistentVolume>("persistent volumes").await?;
        let specs = volumes.into_iter().filter_map(|volume| volume.spec);
        let retained =
            specs.filter(|spec| spec.persistent_volume_reclaim_policy.as_deref() == Some("Retain"));
        let handles = retained.filter_map(|spec| Some(spec.csi?.volume_handle));
        Ok(handles.filter(|handle| handle.starts_with("vol-")).collect())
    }

    /// Deletes one of those objects; its controller then removes the load balancer. True when it was
    /// there.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn delete_front(&self, front: &Front) -> Result<bool, KubeError> {
        let Front { kind, namespace, name } = front;
        let what = format!("delete the {} `{namespace}/{name}`", kind.label());
        let delete = DeleteParams::default();
        self.call(&what, async |client| match kind {
            FrontKind::Service => {
                was_there(Api::<Service>::namespaced(client, namespace).delete(name, &delete).await)
            }
            FrontKind::Ingress => {
                was_there(Api::<Ingress>::namespaced(client, namespace).delete(name, &delete).await)
            }
        })
        .await
    }

    /// All objects of a kind; none where the API server does not serve it.
    async fn everywhere<K>(&self, what: &str) -> Result<Vec<K>, KubeError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let listed = self
            .call(&format!("list the {what}"), async |client: Client| {
                Api::<K>::all(client).list(&ListParams::default()).await
            })
            .await;
        match listed {
            Ok(list) => Ok(list.items),
            Err(error) if matches!(*error.cause, Cause::Refused { code: 404, .. }) => Ok(vec![]),
            Err(error) => Err(error),
        }
    }
}

fn was_there<T>(deleted: Result<T, ClientError>) -> Result<bool, ClientError> {
    match deleted {
        Ok(_) => Ok(true),
        Err(ClientError::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
