//! How a lease is taken, proven, renewed and given back, over a narrow ground: create-only writes,
//! reads that may be one behind, and clocks that may differ.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::aws::AwsError;
use crate::stack::lease::record::{Claim, LASTING, MARGIN, Process, Record};

/// Attempts to take a lease, and looks at one that was taken: reads lag behind writes.
const LOOKS: u32 = 20;

/// Why the lease is not ours.
#[derive(Debug)]
pub enum LeaseError {
    /// Somebody else holds it.
    Held(Box<Record>),
    /// It was ours, and was not renewed in time.
    Expired,
    /// The ground does not answer.
    Aws(AwsError),
}

impl From<AwsError> for LeaseError {
    fn from(error: AwsError) -> Self {
        Self::Aws(error)
    }
}

/// Where leases are kept.
pub trait Ground {
    /// All leases, by number, lowest first.
    fn list(&self) -> impl Future<Output = Result<Vec<(u64, Record)>, AwsError>> + Send;
    /// Makes one; false when there is one of that number.
    fn create(
        &self,
        number: u64,
        record: &Record,
    ) -> impl Future<Output = Result<bool, AwsError>> + Send;
    /// Writes one anew.
    fn replace(
        &self,
        number: u64,
        record: &Record,
    ) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Removes some; those that are not there are no error.
    fn delete(&self, numbers: &[u64]) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// This machine's clock.
    fn now(&self) -> Timestamp;
    /// Whether a process is known to have ended.
    fn is_gone(&self, process: &Process) -> bool;
    /// A short pause between two looks.
    fn pause(&self) -> impl Future<Output = ()> + Send;
}

/// A lease that we hold.
#[derive(Clone, Debug)]
pub struct Holding {
    number: u64,
    since: Timestamp,
    /// The end of our own belief in it.
    believed_until: Arc<Mutex<Timestamp>>,
}

impl Holding {
    fn new(number: u64, since: Timestamp, written: Timestamp) -> Self {
        Self { number, since, believed_until: Arc::new(Mutex::new(belief(written))) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether we may still believe in it.
    pub fn is_believed(&self, ground: &impl Ground) -> bool {
        ground.now() <= self.believed_until()
    }

    fn believed_until(&self) -> Timestamp {
        *self.believed_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until when a lease is believed in that was written at a moment, or a little later.
fn belief(written: Timestamp) -> Timestamp {
    written + (LASTING - MARGIN)
}

async fn highest(ground: &impl Ground) -> Result<Option<(u64, Record)>, AwsError> {
    Ok(ground.list().await?.pop())
}

/// Takes the lease.
///
/// # Errors
/// [`LeaseError::Held`] when somebody else holds it.
pub async fn take(ground: &impl Ground, claim: &Claim) -> Result<Holding, LeaseError> {
    for _ in 0..LOOKS {
        // Before the reads: a renewal that is still in time is then seen by them.
        let began = ground.now();
        // A single read may be one behind: it could hide a renewal, or who has taken over since.
        let first = highest(ground).await?;
        ground.pause().await;
        let seen = highest(ground).await?;
        if first != seen {
            continue;
        }
        let number = match seen {
            None => 1,
            // Our own call whose answer was lost.
            Some((number, record)) if record.run == claim.run => {
                return Ok(Holding::new(number, record.since, record.since));
            }
            Some((number, record)) if record.is_over(began, |p| ground.is_gone(p)) => number + 1,
            Some((_, record)) => return Err(LeaseError::Held(Box::new(record))),
        };
        let record = claim.record(began, began);
        if ground.create(number, &record).await? {
            let holding = Holding::new(number, began, began);
            settle(ground, claim, &holding).await?;
            return Ok(holding);
        }
        ground.pause().await;
    }
    let attempted = "take the fleet's lease: others keep taking it".to_owned();
    Err(AwsError::Incomplete { attempted, missing: "a turn for us" }.into())
}

/// Waits until our new lease is seen, and removes what is older than the one before it. That one stays:
/// whoever still looks at it must not find its number free.
async fn settle(ground: &impl Ground, claim: &Claim, holding: &Holding) -> Result<(), LeaseError> {
    prove(ground, claim, holding).await?;
    let old = ground.list().await?.into_iter().map(|(number, _)| number);
    let old: Vec<u64> = old.filter(|number| number + 1 < holding.number).collect();
    if !old.is_empty() {
        ground.delete(&old).await?;
    }
    Ok(())
}

/// Proves that the lease is ours, by reading it again.
///
/// # Errors
/// [`LeaseError::Held`] when somebody else has taken it, or it has not been renewed in time.
pub async fn prove(
    ground: &impl Ground,
    claim: &Claim,
    holding: &Holding,
) -> Result<(), LeaseError> {
    for _ in 0..LOOKS {
        match highest(ground).await? {
            Some((_, record)) if record.run == claim.run => {
                // The clock after the read: it may have taken as long as the belief lasts.
                return match holding.is_believed(ground) {
                    true => Ok(()),
                    false => Err(LeaseError::Expired),
                };
            }
            Some((number, record)) if number >= holding.number => {
                return Err(LeaseError::Held(Box::new(record)));
            }
            // A read from before we took it.
            Some(_) | None => ground.pause().await,
        }
    }
    let attempted = format!("read the fleet's lease `{}`", holding.number);
    Err(AwsError::Incomplete { attempted, missing: "trace of it" }.into())
}

/// Renews the lease.
///
/// # Errors
/// [`LeaseError::Held`] when somebody else has taken it.
pub async fn renew(
    ground: &impl Ground,
    claim: &Claim,
    holding: &Holding,
) -> Result<(), LeaseError> {
    prove(ground, claim, holding).await?;
    let began = ground.now();
    ground.replace(holding.number, &claim.record(holding.since, began)).await?;
    // A write that came after the end is none: somebody may have taken over before it.
    if holding.is_believed(ground) {
        *holding.believed_until.lock().unwrap_or_else(PoisonError::into_inner) = belief(began);
    }
    Ok(())
}

/// Gives the lease back.
///
/// # Errors
/// When the ground does not answer.
pub async fn release(
    ground: &impl Ground,
    claim: &Claim,
    holding: &Holding,
) -> Result<(), AwsError> {
    match prove(ground, claim, holding).await {
        Ok(()) => {}
        // It is not ours any more: there is nothing to give back.
        Err(LeaseError::Held(_) | LeaseError::Expired) => return Ok(()),
        Err(LeaseError::Aws(error)) => return Err(error),
    }
    let record = claim.record(holding.since, ground.now());
    ground.replace(holding.number, &Record { released: true, ..record }).await
}

/// Removes all leases, ours last.
///
/// # Errors
/// When the ground does not answer.
pub async fn remove(ground: &impl Ground, holding: &Holding) -> Result<(), AwsError> {
    let all = ground.list().await?.into_iter().map(|(number, _)| number);
    let others: Vec<u64> = all.filter(|number| *number != holding.number).collect();
    if !others.is_empty() {
        ground.delete(&others).await?;
    }
    ground.delete(&[holding.number]).await
}

#[cfg(test)]
mod tests;
