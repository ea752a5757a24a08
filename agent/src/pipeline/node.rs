//! The node that joins, and the ways to what is around it.

use std::io;
use std::sync::Arc;

use crate::aws::ec2::Ec2;
use crate::aws::eks::Eks;
use crate::aws::signed::Service;
use crate::aws::{AwsClient, Endpoints, Imds, RoleCredentials};
use crate::host::systemd::Systemd;
use crate::host::{Root, clock};
use crate::phases::configure::proxy::WayToAws;

/// The node, and the ways to what is around it.
#[derive(Debug)]
pub struct Node {
    /// Its files.
    pub root: Root,
    /// This boot.
    pub boot: String,
    /// Its metadata service.
    pub imds: Arc<Imds>,
    /// Its role.
    pub credentials: RoleCredentials,
    /// Where AWS's services are.
    pub endpoints: Endpoints,
    /// Its PID 1.
    pub systemd: Systemd,
    /// For AWS's public endpoints.
    pub http: AwsClient,
    /// The proxies on the way there.
    pub way: WayToAws,
}

impl Node {
    /// The node below `root`.
    ///
    /// # Errors
    /// When the client for AWS cannot be made.
    pub fn of(root: Root) -> io::Result<Self> {
        let boot = clock::boot_id(&root).unwrap_or_else(|error| {
            tracing::warn!(error = %contract::ErrorChain(&error), "the boot has no id");
            String::new()
        });
        let imds = Arc::new(Imds::from_env());
        let way = WayToAws::from_env();
        let learnt = way.clone();
        let proxy = reqwest::Proxy::custom(move |url| learnt.to(url.as_str()));
        Ok(Self {
            boot,
            credentials: RoleCredentials::new(Arc::clone(&imds)),
            imds,
            endpoints: Endpoints::from_env(),
            systemd: Systemd::new(root.clone()),
            http: AwsClient::begin(proxy)?,
            way,
            root,
        })
    }

    /// EKS's own API.
    #[must_use]
    pub fn eks(&self, region: &str) -> Eks {
        Eks(self.service("EKS", "eks", region))
    }

    /// EC2 in a region.
    #[must_use]
    pub fn ec2(&self, region: &str) -> Ec2 {
        Ec2(self.service("EC2", "ec2", region))
    }

    /// A service of AWS that has no client of its own here: `id` as the SDKs' variables spell it.
    #[must_use]
    pub fn service(&self, id: &str, name: &'static str, region: &str) -> Service {
        let url = self.endpoints.url(id, name, region);
        Service::new(name, url, region, self.credentials.clone(), self.http.get())
    }
}
