//! What all machines of a lab share: the bridge, AWS's addresses on it, images, the upper layer.

use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::holder::Holder;
use super::{MachineError, check, image, network, remains};
use crate::kubernetes::real::Parts;
use crate::kubernetes::real::relay::{self, CutOff, Mode};

/// The ground that a lab's machines stand on.
#[derive(Debug)]
pub struct Ground {
    pub(super) parts: Parts,
    pub(super) dir: PathBuf,
    relays: Option<(watch::Sender<Mode>, Vec<JoinHandle<()>>)>,
    holder: Holder,
}

impl Ground {
    /// Makes it below `dir`, the lab's own; `lab` is this program. What a killed lab has left is
    /// cleared away first.
    ///
    /// # Errors
    /// When this machine cannot have machine nodes, or another lab has some.
    pub async fn lay(dir: &Path, lab: &Path) -> Result<Self, MachineError> {
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
        let dir = dir.join("machines");
        let ground = Self { parts, dir, relays: None, holder };
        network::create()?;
        image::layer(&ground.dir, &ground.parts, lab)?;
        Ok(ground)
    }

    /// Brings AWS onto the bridge.
    ///
    /// # Errors
    /// When an address is not free.
    pub async fn relay(&mut self, emulator: &str) -> Result<(), MachineError> {
        let host = emulator.trim_start_matches("http://").trim_end_matches('/');
        let emulator = host.parse().map_err(|_| {
            MachineError::System(
                format!("find AWS at `{emulator}`"),
                std::io::ErrorKind::InvalidInput.into(),
            )
        })?;
        let (mode, receiver) = watch::channel(Mode::Open);
        let mut tasks = Vec::new();
        let services = network::SERVICES.map(|(_, address)| (address, network::SERVICE_PORT));
        let sts = (network::STS.1, network::STS.2);
        for address in services.into_iter().chain([sts]).map(std::net::SocketAddr::from) {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| MachineError::Relay { address, source })?;
            let cut_off = CutOff::default();
            tasks.push(tokio::spawn(relay::run(
                listener,
                address,
                emulator,
                cut_off,
                receiver.clone(),
            )));
        }
        self.relays = Some((mode, tasks));
        Ok(())
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
        if let Some((mode, _)) = &self.relays {
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
