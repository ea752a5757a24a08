//! Create, for calls without a client token: adopt or create, looked up by tag before and after.
//!
//! An SDK's own retry of a lost answer makes a second one, and a crash between the call and its
//! answer leaves one that nobody knows. So the look-up comes first; after the call another one finds
//! what was made twice, keeps the one with the lowest id, as every other run would, and removes the
//! others, which nothing depends on yet.

use contract::StepOutcome;

use crate::aws::AwsError;
use crate::aws::poll::{Pace, breathe};

/// Looks after a create, before giving up on seeing what was made: reads lag behind writes.
const LOOKS: u32 = 20;
/// Looks after a plain refusal: enough for a first call that took effect to show.
const LOOKS_AFTER_REFUSAL: u32 = 4;

/// Adopts what `find` finds, or creates it. `find` answers ids in order.
///
/// # Errors
/// Those of the three calls.
pub async fn adopt_or_create(
    pace: Pace,
    find: impl AsyncFn() -> Result<Vec<String>, AwsError>,
    create: impl AsyncFn() -> Result<String, AwsError>,
    remove: impl AsyncFn(&str) -> Result<(), AwsError>,
) -> Result<(String, StepOutcome), AwsError> {
    let found = find().await?;
    if let Some(kept) = found.first() {
        for id in &found[1..] {
            remove(id).await?;
        }
        return Ok((kept.clone(), StepOutcome::Unchanged));
    }
    let (made, refusal) = match create().await {
        Ok(id) => (Some(id), None),
        // The answer may be lost, or a retry of a lost one was refused because of what the first
        // had made (`InvalidSubnet.Conflict`): whether it took effect, the look-up says.
        Err(error) => (None, Some(error)),
    };
    let looks = if refusal.as_ref().is_some_and(|error| error.code().is_some()) {
        LOOKS_AFTER_REFUSAL
    } else {
        LOOKS
    };
    let kept = look_again(pace, looks, made.as_deref(), &find, &remove).await?;
    match (kept.or(made), refusal) {
        (Some(id), _) => Ok((id, StepOutcome::Done)),
        (None, Some(error)) => Err(error),
        (None, None) => create().await.map(|id| (id, StepOutcome::Done)),
    }
}

async fn look_again(
    pace: Pace,
    looks: u32,
    made: Option<&str>,
    find: &impl AsyncFn() -> Result<Vec<String>, AwsError>,
    remove: &impl AsyncFn(&str) -> Result<(), AwsError>,
) -> Result<Option<String>, AwsError> {
    for _ in 0..looks {
        let found = find().await?;
        let seen = match made {
            Some(made) => found.iter().any(|id| id == made),
            None => !found.is_empty(),
        };
        if seen {
            for id in &found[1..] {
                remove(id).await?;
            }
            return Ok(found.into_iter().next());
        }
        breathe(pace).await;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use super::*;

    const PACE: Pace = Pace { first: Duration::from_micros(10), slowest: Duration::from_millis(1) };

    fn lost() -> AwsError {
        AwsError::Unreachable { attempted: "create".into(), source: "reset".into() }
    }

    fn refused() -> AwsError {
        AwsError::Refused {
            attempted: "create".into(),
            code: "InvalidSubnet.Conflict".into(),
            source: "conflicts with another".into(),
        }
    }

    /// An account where `create` makes `each` things and loses its answer when told to.
    struct Account {
        things: RefCell<Vec<String>>,
        each: usize,
        loses_answer: Cell<bool>,
        refuses_seconds: bool,
    }

    impl Account {
        fn new(each: usize, loses_answer: bool) -> Self {
            let loses_answer = Cell::new(loses_answer);
            Self { things: RefCell::default(), each, loses_answer, refuses_seconds: false }
        }

        async fn run(&self) -> Result<(String, StepOutcome), AwsError> {
            adopt_or_create(
                PACE,
                async || Ok(self.things.borrow().clone()),
                async || {
                    let mut things = self.things.borrow_mut();
                    for _ in 0..self.each {
                        let id = format!("vpc-{}", things.len());
                        things.push(id);
                    }
                    let last = things.last().cloned();
                    if self.refuses_seconds {
                        return Err(refused());
                    }
                    if self.loses_answer.take() { Err(lost()) } else { last.ok_or_else(lost) }
                },
                async |id| {
                    self.things.borrow_mut().retain(|thing| thing != id);
                    Ok(())
                },
            )
            .await
        }
    }

    #[tokio::test]
    async fn what_is_there_is_adopted() {
        let account = Account::new(1, false);
        assert_eq!(account.run().await.unwrap().1, StepOutcome::Done);
        assert_eq!(account.run().await.unwrap(), ("vpc-0".into(), StepOutcome::Unchanged));
        assert_eq!(account.things.borrow().len(), 1);
    }

    #[tokio::test]
    async fn a_retry_of_a_lost_answer_leaves_one() {
        for (each, loses_answer) in [(2, false), (1, true), (2, true), (3, false)] {
            let account = Account::new(each, loses_answer);
            assert_eq!(account.run().await.unwrap(), ("vpc-0".into(), StepOutcome::Done));
            assert_eq!(*account.things.borrow(), ["vpc-0"]);
        }
    }

    #[tokio::test]
    async fn a_retry_that_is_refused_because_the_first_took_effect_adopts_it() {
        let account = Account { refuses_seconds: true, ..Account::new(1, false) };
        assert_eq!(account.run().await.unwrap(), ("vpc-0".into(), StepOutcome::Done));
    }

    #[tokio::test]
    async fn a_refusal_that_made_nothing_is_told() {
        let account = Account { refuses_seconds: true, ..Account::new(0, false) };
        assert_eq!(account.run().await.unwrap_err().code(), Some("InvalidSubnet.Conflict"));
    }
}
