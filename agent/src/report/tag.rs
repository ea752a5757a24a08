//! The tag on the instance: a cheap index for fleets, read with `DescribeInstances`.

use std::time::Duration;

use contract::join_report::JoinOutcome;
use contract::names::TAG_JOIN;
use contract::{ErrorChain, JoinReport};

use super::channel::{Channel, Delivery, within};
use super::spool::Spool;
use crate::aws::ec2::Ec2;
use crate::host::{Deadline, Root};
use crate::pipeline::points::{self, Effect, Point};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);

/// The tag of one instance.
#[derive(Debug)]
pub struct Tag {
    ec2: Ec2,
    instance: String,
    spool: Spool,
}

impl Tag {
    /// The tag of `instance`.
    #[must_use]
    pub fn new(ec2: Ec2, root: &Root, instance: String) -> Self {
        Self { ec2, instance, spool: Spool::of(root, "tag") }
    }
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
        self.spool.delivered()
    }

    fn is_spread(&self, message: &String) -> bool {
        message != JoinOutcome::Ready.label()
    }

    async fn deliver(&self, message: &String) -> Delivery {
        points::reached(Point::Before(Effect::TagInstance));
        let attempt = async {
            let deadline = Deadline::within(ATTEMPT);
            match self.ec2.tag(&self.instance, TAG_JOIN, message, deadline).await {
                Ok(()) => Delivery::Done,
                Err(error) if error.is_denied() => Delivery::Never(ErrorChain(&error).to_string()),
                Err(error) => Delivery::Again(ErrorChain(&error).to_string()),
            }
        };
        let delivered = within(ATTEMPT, attempt).await;
        if matches!(delivered, Delivery::Done) {
            points::reached(Point::Unrecorded(Effect::TagInstance));
            self.spool.keep(message, true);
            points::reached(Point::After(Effect::TagInstance));
        }
        delivered
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
