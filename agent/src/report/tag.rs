//! The tag on the instance: a cheap index for fleets, read with `DescribeInstances`.

use std::time::Duration;

use contract::join_report::JoinOutcome;
use contract::names::TAG_JOIN;
use contract::{ErrorChain, JoinReport};

use super::channel::{Channel, Delivery, within};
use crate::aws::ec2::Ec2;
use crate::host::Deadline;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);

/// The tag of one instance.
#[derive(Debug)]
pub struct Tag {
    /// EC2.
    pub ec2: Ec2,
    /// The instance.
    pub instance: String,
}

/// The tag's value: `ready`, or `failed <Reason>`.
#[must_use]
pub fn value(report: &JoinReport) -> Option<String> {
    match (report.outcome, report.cause()) {
        (JoinOutcome::Joining, _) => None,
        (JoinOutcome::Ready, _) => Some(JoinOutcome::Ready.label().to_owned()),
        (JoinOutcome::Failed, Some(cause)) => {
            Some(format!("{} {}", JoinOutcome::Failed.label(), cause.reason))
        }
        (JoinOutcome::Failed, None) => Some(JoinOutcome::Failed.label().to_owned()),
    }
}

impl Channel for Tag {
    type Message = String;
    const NAME: &'static str = "tag";

    fn wanted(&self, report: &JoinReport) -> Option<String> {
        value(report)
    }

    fn delivered(&self) -> Option<String> {
        // Writing the same value again is harmless, and cheaper than a state of its own.
        None
    }

    fn is_spread(&self, message: &String) -> bool {
        message != JoinOutcome::Ready.label()
    }

    async fn deliver(&self, message: &String) -> Delivery {
        let attempt = async {
            let deadline = Deadline::within(ATTEMPT);
            match self.ec2.tag(&self.instance, TAG_JOIN, message, deadline).await {
                Ok(()) => Delivery::Done,
                Err(error) if error.is_denied() => Delivery::Never(ErrorChain(&error).to_string()),
                Err(error) => Delivery::Again(ErrorChain(&error).to_string()),
            }
        };
        within(ATTEMPT, attempt).await
    }
}

#[cfg(test)]
mod tests {
    use contract::Reason;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn says_the_outcome_and_the_cause() {
        let reasons = [Reason::DriverLibraryMismatch, Reason::StsUnreachable];
        for (outcome, reasons, expected) in [
            (JoinOutcome::Joining, &reasons[..], None),
            (JoinOutcome::Ready, &reasons[1..], Some("ready")),
            (JoinOutcome::Failed, &reasons[..], Some("failed DriverLibraryMismatch")),
        ] {
            assert_eq!(value(&report(outcome, reasons)).as_deref(), expected);
        }
    }
}
