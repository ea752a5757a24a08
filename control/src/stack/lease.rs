//! Two operators: only the holder of the fleet's lease changes anything.
//!
//! A lease is a parameter `/rollcall-control/<fleet>/lease/<n>` that is created and never taken from
//! its creator: another takes over by creating `n + 1` once `n` is over, and the highest rules. Its
//! holder renews it in the background, stops believing in it a while before it ends, and reads it
//! again before each step that changes something. A lease is over when its time is up, when its
//! holder has given it back, or when its holder was a process of this machine that is gone: so a
//! command that was killed is followed up at once.
//!
//! [`protocol`] is the whole of it, over a narrow [`protocol::Ground`]; [`store`] is the ground in AWS, and
//! [`record`] what a lease says. `up` and `down` take the lease with their first change, so that a
//! fleet that is as asked is not touched at all.

pub mod protocol;
pub mod record;
pub mod store;

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::aws::Clients;
use crate::stack::StackError;
use protocol::{Ground as _, Holding, LeaseError};
use record::{Claim, Record};
use store::Parameters;

/// The lease of a walk: not yet taken, held, or lost.
#[derive(Clone, Debug)]
pub struct Lease {
    ground: Parameters,
    claim: Arc<Claim>,
    held: Arc<Mutex<Option<Held>>>,
    lost: Arc<watch::Sender<Option<Lost>>>,
}

/// Why a lease is ours no more: whoever has taken it, or nobody.
type Lost = Option<Box<Record>>;

#[derive(Debug)]
struct Held {
    holding: Holding,
    renewing: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Lease {
    /// A lease that nobody has taken yet. `holder` is who the credentials are.
    #[must_use]
    pub fn on(clients: &Clients, fleet: &str, holder: &str) -> Self {
        Self {
            ground: Parameters::new(clients, fleet),
            claim: Arc::new(Claim::of_this_process(holder)),
            held: Arc::default(),
            lost: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Proves that the lease is ours, now; takes it if it has not been taken yet. True when it was
    /// taken just now: what was read before may be another holder's work.
    ///
    /// # Errors
    /// [`StackError::LeaseHeld`] when somebody else holds it, or AWS's refusal.
    pub async fn prove(&self) -> Result<bool, StackError> {
        let about = |error: LeaseError| error.about(self.ground.fleet());
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref() {
            protocol::prove(&self.ground, &self.claim, &held.holding).await.map_err(about)?;
            return Ok(false);
        }
        let holding = protocol::take(&self.ground, &self.claim).await.map_err(about)?;
        tracing::info!(number = holding.number(), "took the fleet's lease");
        let renewing = tokio::spawn(self.clone().renew(holding.clone()));
        *held = Some(Held { holding, renewing });
        Ok(true)
    }

    /// Ends when the lease is lost, with why; never while it is held, or before it is taken.
    pub async fn lost(&self) -> StackError {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) {
            Some(by) => by.map_or(LeaseError::Expired, LeaseError::Held).about(self.ground.fleet()),
            None => std::future::pending().await,
        }
    }

    async fn renew(self, holding: Holding) {
        let by = loop {
            tokio::time::sleep(record::RENEWAL).await;
            match protocol::renew(&self.ground, &self.claim, &holding).await {
                Ok(()) => continue,
                // The next turn may succeed.
                Err(LeaseError::Aws(why)) if holding.is_believed(&self.ground) => {
                    tracing::warn!(error = %contract::ErrorChain(&why), "lease was not renewed");
                }
                Err(LeaseError::Aws(_) | LeaseError::Expired) => break None,
                Err(LeaseError::Held(by)) => break Some(by),
            }
        };
        self.lost.send_replace(Some(by));
    }

    /// Gives the lease back, so that the next command need not wait. A failure costs the next one
    /// that wait alone, so it is logged and no more.
    pub async fn release(&self) {
        let Some(held) = self.held.lock().await.take() else { return };
        if let Err(error) = protocol::release(&self.ground, &self.claim, &held.holding).await {
            tracing::warn!(error = %contract::ErrorChain(&error), "lease was not given back");
        }
    }

    /// Removes all leases of the fleet, ours last: the end of `down`.
    ///
    /// # Errors
    /// [`StackError::LeaseHeld`] when it is not ours, or AWS's refusal.
    pub async fn remove(&self) -> Result<(), StackError> {
        if self.ground.list().await?.is_empty() {
            return Ok(());
        }
        self.prove().await?;
        let Some(held) = self.held.lock().await.take() else { return Ok(()) };
        protocol::remove(&self.ground, &held.holding).await?;
        Ok(())
    }
}

impl LeaseError {
    fn about(self, fleet: &str) -> StackError {
        match self {
            Self::Held(by) => StackError::LeaseHeld { fleet: fleet.to_owned(), by },
            Self::Expired => StackError::LeaseExpired { fleet: fleet.to_owned() },
            Self::Aws(error) => error.into(),
        }
    }
}
