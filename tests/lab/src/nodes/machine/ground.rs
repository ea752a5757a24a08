//! What all machines of a lab share: the bridge, AWS's addresses on it, images, the upper layer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::firewall::{self, Rule};
use super::holder::Holder;
use super::power::name_of;
use super::sts::Sts;
use super::{MachineError, check, image, network, remains};
use crate::aws::Instance;
use crate::faults::network::{Kind, NetworkFault, Path};
use crate::kubernetes::real::Parts;
use crate::relay::{Mode, Relay, Trouble, Troubles};

/// The ground that a lab's machines stand on.
#[derive(Debug)]
pub struct Ground {
    pub(super) parts: Parts,
    pub(super) dir: PathBuf,
    pub(super) sts: Sts,
    relays: Option<watch::Sender<Mode>>,
    /// What is wrong with the way to each AWS service, by the machine's address.
    troubles: BTreeMap<Path, Troubles>,
    /// What is wrong with IMDS, by the machine's name.
    imds: Mutex<BTreeMap<String, Troubles>>,
    holder: Holder,
}

/// A machine's network; IMDS can be reached through it for as long as this is kept.
#[derive(Debug)]
pub struct Wire {
    _imds: watch::Sender<Mode>,
}

/// What a proxy makes of a fault.
fn trouble(fault: &NetworkFault) -> Option<Trouble> {
    match fault.kind {
        Kind::Reset => Some(Trouble::Reset),
        Kind::Delay(delay) => Some(Trouble::Delayed(delay)),
        Kind::Drop | Kind::Reject => None,
    }
}

/// What the machine's own rules make of it.
fn rule(fault: &NetworkFault) -> Option<Rule> {
    let to = network::address(fault.path);
    match fault.kind {
        Kind::Drop => Some(Rule::Drop(to)),
        Kind::Reject => Some(Rule::Reject(to)),
        Kind::Reset | Kind::Delay(_) => None,
    }
}

impl Ground {
    /// Makes it below `dir`, the lab's own; `lab` is this program. What a killed lab has left is
    /// cleared away first.
    ///
    /// # Errors
    /// When this machine cannot have machine nodes, or another lab has some.
    pub async fn lay(dir: &std::path::Path, lab: &std::path::Path) -> Result<Self, MachineError> {
        let parts = check()?;
        match Holder::read() {
            Some(other) if other.is_alive() => {
                return Err(MachineError::Taken(other.lab.display().to_string()));
            }
            Some(_) => remains::sweep(dir).await?,
            None if network::exists() => {
                return Err(MachineError::Taken("an unknown place".into()));
            }
            None => {}
        }
        let holder = Holder::here(dir);
        holder.write()?;
        holder.make_room();
        let ground = Self {
            parts,
            dir: dir.join("machines"),
            sts: Sts::new()?,
            relays: None,
            troubles: BTreeMap::new(),
            imds: Mutex::default(),
            holder,
        };
        network::create()?;
        image::layer(&ground.dir, &ground.parts, lab)?;
        Ok(ground)
    }

    /// Brings AWS onto the bridge, each service at its own address, and STS behind its own name.
    ///
    /// # Errors
    /// When an address is not free.
    pub async fn relay(&mut self, emulator: &str) -> Result<(), MachineError> {
        let host = emulator.trim_start_matches("http://").trim_end_matches('/');
        let upstream = host.parse().map_err(|_| {
            let what = format!("find AWS at `{emulator}`");
            MachineError::System(what, std::io::ErrorKind::InvalidInput.into())
        })?;
        let (mode, receiver) = watch::channel(Mode::Open);
        let port = network::SERVICE_PORT;
        let services = network::SERVICES.map(|(_, path, to)| (path, (to, port).into(), None));
        let sts = (network::STS.1, network::STS.2).into();
        let sts = (Path::Sts, sts, Some(self.sts.acceptor.clone()));
        for (path, address, tls) in services.into_iter().chain([sts]) {
            let listener = TcpListener::bind::<SocketAddr>(address)
                .await
                .map_err(|source| MachineError::Relay { address, source })?;
            let troubles = Troubles::default();
            self.troubles.insert(path, troubles.clone());
            tokio::spawn(Relay { listener, upstream, troubles, tls }.run(receiver.clone()));
        }
        self.relays = Some(mode);
        Ok(())
    }

    /// Makes the instance's network anew, with IMDS, which is served at `imds`, at its real address.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub fn connect(&self, instance: &Instance, imds: SocketAddr) -> Result<Wire, MachineError> {
        let name = name_of(&instance.instance_id);
        network::connect(name, &instance.private_ip, &instance.mac)?;
        let listener = network::imds_listener(name)?;
        let troubles = self.imds_troubles(name);
        let (mode, receiver) = watch::channel(Mode::Open);
        tokio::spawn(Relay { listener, upstream: imds, troubles, tls: None }.run(receiver));
        Ok(Wire { _imds: mode })
    }

    /// Makes paths of an instance's machine as bad as these faults say, and all others whole. `api`
    /// are the troubles on the way to the API server.
    ///
    /// # Errors
    /// When the machine's rules cannot be set.
    pub(crate) fn shape(
        &self,
        instance: &Instance,
        faults: &[NetworkFault],
        api: Option<&Troubles>,
    ) -> Result<(), MachineError> {
        let name = name_of(&instance.instance_id);
        let peer = instance.private_ip.parse().ok();
        for (_, path) in Path::ALL {
            let trouble = faults.iter().filter(|fault| fault.path == path).find_map(trouble);
            match path {
                Path::Imds => self.imds_troubles(name).set(None, trouble),
                Path::Api => {
                    if let Some(api) = api {
                        api.set(peer, trouble);
                    }
                }
                _ => {
                    if let Some(troubles) = self.troubles.get(&path) {
                        troubles.set(peer, trouble);
                    }
                }
            }
        }
        if !network::is_connected(name) {
            return Ok(());
        }
        let rules: Vec<Rule> = faults.iter().filter_map(rule).collect();
        firewall::set(&self.parts, name, &rules)
    }

    fn imds_troubles(&self, name: &str) -> Troubles {
        let mut all = self.imds.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().clone()
    }

    /// The one file of what machines need beyond AL2023.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.dir.join("beyond-al2023.conf")
    }

    /// Versions of the real parts, by name.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Takes it all away; again does nothing.
    pub fn clear(&self) {
        if Holder::read().as_ref() != Some(&self.holder) {
            return;
        }
        if let Some(mode) = &self.relays {
            mode.send_replace(Mode::Stopped);
        }
        if network::exists()
            && let Err(error) = network::remove()
        {
            tracing::warn!(%error, "bridge not removed");
        }
        self.holder.release();
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.clear();
    }
}
