//! Parameter Store: written when a join fails or its reason changes, deleted when the node is Ready;
//! never a heartbeat.
//!
//! What is or may be in Parameter Store is remembered in the spool, so that a restart neither
//! forgets an undelivered report nor leaves one behind that is no longer true.

use std::time::Duration;

use contract::JoinReport;
use contract::join_report::JoinOutcome;
use contract::names::{REPORT_VALUE_MAX, report_parameter};

use super::channel::{Channel, Delivery, within};
use super::spool::Spool;
use crate::aws::ssm::{Parameter, ParameterError, ParameterStore};
use crate::host::Root;
use crate::pipeline::points::{self, Effect, Point};

/// How long one attempt may take: two calls.
const ATTEMPT: Duration = Duration::from_secs(25);

/// The report parameter of one node.
#[derive(Debug)]
pub struct ReportParameter {
    store: ParameterStore,
    instance_arn: String,
    spool: Spool,
}

/// What Parameter Store is to hold.
#[derive(Clone, Debug)]
pub enum Message {
    /// This report.
    Report(Parameter),
    /// Nothing under this name.
    Nothing(String),
}

impl PartialEq for Message {
    /// The description is the verdict: the same reason again is not written again, whatever its
    /// attempt or evidence.
    fn eq(&self, other: &Self) -> bool {
        let verdict = |parameter: &Parameter| {
            let end = parameter.description.find(" attempt=");
            parameter.description[..end.unwrap_or(parameter.description.len())].to_owned()
        };
        match (self, other) {
            (Self::Report(one), Self::Report(other)) => {
                one.name == other.name && verdict(one) == verdict(other)
            }
            (Self::Nothing(one), Self::Nothing(other)) => one == other,
            _ => false,
        }
    }
}

impl ReportParameter {
    /// The parameter of the instance `instance_arn`.
    #[must_use]
    pub fn new(store: ParameterStore, root: &Root, instance_arn: String) -> Self {
        Self { store, instance_arn, spool: Spool::of(root, "report") }
    }

    /// Deletes the parameter. The right to do so is bound to the parameter's own tag: for one that is
    /// gone it is refused, so a refusal after a call whose answer was lost says that it was deleted.
    async fn withdraw(&self, name: &str) -> Delivery {
        let may_be_gone = self.spool.is_withdrawing();
        self.spool.withdraw(true);
        points::reached(Point::Before(Effect::DeleteReport));
        let delete = async {
            match self.store.delete(name).await {
                Err(error) if error.is_denied() && may_be_gone => {
                    tracing::info!(%error, "an earlier call has deleted the report");
                    Delivery::Done
                }
                result => delivery(result),
            }
        };
        let delivered = within(ATTEMPT, delete).await;
        match delivered {
            Delivery::Done => {
                points::reached(Point::Unrecorded(Effect::DeleteReport));
                self.spool.forget();
                points::reached(Point::After(Effect::DeleteReport));
            }
            Delivery::Never(_) => self.spool.withdraw(false),
            Delivery::Again(_) => {}
        }
        delivered
    }
}

fn delivery(result: Result<(), ParameterError>) -> Delivery {
    match result {
        Ok(()) => Delivery::Done,
        Err(error) if error.is_final() => Delivery::Never(error.to_string()),
        Err(error) => Delivery::Again(error.to_string()),
    }
}

impl Channel for ReportParameter {
    type Message = Message;
    const NAME: &'static str = "parameter";

    fn wanted(&self, report: &JoinReport) -> Option<Message> {
        let name = report_parameter(&report.cluster, &report.pool, &report.instance.id);
        match report.outcome {
            // What the life or the boot before could not deliver is still worth knowing.
            JoinOutcome::Joining => self.spool.undelivered().map(Message::Report),
            JoinOutcome::Ready => self.spool.is_used().then_some(Message::Nothing(name)),
            JoinOutcome::Failed => Some(Message::Report(Parameter {
                name,
                value: report.to_json_within(REPORT_VALUE_MAX),
                description: report.description(),
                instance_arn: self.instance_arn.clone(),
            })),
        }
    }

    fn delivered(&self) -> Option<Message> {
        self.spool.delivered().map(Message::Report)
    }

    fn is_spread(&self, message: &Message) -> bool {
        matches!(message, Message::Report(_))
    }

    async fn deliver(&self, message: &Message) -> Delivery {
        match message {
            Message::Report(parameter) => {
                self.spool.keep(parameter, false);
                points::reached(Point::Before(Effect::PutReport));
                let put = async { delivery(self.store.put(parameter).await) };
                let delivered = within(ATTEMPT, put).await;
                if matches!(delivered, Delivery::Done) {
                    points::reached(Point::Unrecorded(Effect::PutReport));
                    self.spool.keep(parameter, true);
                    points::reached(Point::After(Effect::PutReport));
                }
                delivered
            }
            Message::Nothing(name) => self.withdraw(name).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::Reason;
    use tokio::sync::watch;

    use super::*;
    use crate::aws::{Imds, RoleCredentials};
    use crate::report::channel::serve;
    use crate::report::tests::report;
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;

    fn channel(root: &Root, store: ParameterStore) -> ReportParameter {
        ReportParameter::new(store, root, "arn:aws:ec2:us-east-1:1:instance/i-0abc".into())
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = crate::host::Deadline::within(Duration::from_secs(20));
        while !condition() {
            assert!(!deadline.has_passed(), "it did not come to pass");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Parameter Store as far as the write protocol needs it: one parameter.
    fn answer(request: &str, exists: &std::sync::Mutex<bool>) -> Answer {
        let mut exists = exists.lock().unwrap();
        let has = |text: &str| request.contains(text);
        if has("x-amz-target: AmazonSSM.PutParameter") {
            let (tags, overwrite) = (has("\"Tags\""), has("\"Overwrite\":true"));
            assert!(tags != overwrite, "SSM refuses both at once: {request}");
            if *exists && !overwrite {
                return Answer::status(400, r#"{"__type":"ParameterAlreadyExists"}"#);
            }
            *exists = true;
            Answer::ok(r#"{"Version":1}"#)
        } else {
            assert!(has("AmazonSSM.DeleteParameter"), "{request}");
            let existed = std::mem::replace(&mut *exists, false);
            if existed {
                Answer::ok("{}")
            } else {
                Answer::status(400, r#"{"__type":"ParameterNotFound"}"#)
            }
        }
    }

    #[tokio::test]
    async fn writes_failures_and_deletes_them_when_ready() {
        let exists = Arc::new(std::sync::Mutex::new(true));
        let shared = Arc::clone(&exists);
        let server = Server::start(move |request| answer(request, &shared)).await;
        let imds = Server::start(imds_answers).await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&imds.url())));
        let store = ParameterStore::at(Some(server.url()), "us-east-1", credentials, None);
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());

        let (sender, receiver) = watch::channel(report(JoinOutcome::Joining, &[]));
        let task = tokio::spawn(serve(channel(&root, store.clone()), receiver, 1));
        sender.send_replace(report(JoinOutcome::Failed, &[Reason::GpuCountShort]));
        until(|| server.requests().len() == 2).await;
        let again = &server.requests()[1];
        assert!(again.contains(r#""Name":"/rollcall/prod/h100/i-0abc""#), "{again}");
        assert!(again.contains("v1 reason=GpuCountShort phase=drivers attempt=1"), "{again}");
        until(|| channel(&root, store.clone()).delivered().is_some()).await;

        let mut later = report(JoinOutcome::Failed, &[Reason::GpuCountShort]);
        later.attempt = 2;
        sender.send_replace(later);
        sender.send_replace(report(JoinOutcome::Ready, &[]));
        until(|| !*exists.lock().unwrap()).await;
        until(|| !channel(&root, store.clone()).spool.is_used()).await;
        assert_eq!(server.requests().len(), 3, "the same reason was not written again");
        drop(sender);
        task.await.unwrap();
    }

    /// IAM as it is for a right that is bound to the parameter's tag: what is gone has none.
    #[tokio::test]
    async fn a_refusal_after_a_lost_answer_says_that_it_is_gone() {
        let denied = |_: &str| Answer::status(400, r#"{"__type":"AccessDeniedException"}"#);
        let server = Server::start(denied).await;
        let imds = Server::start(imds_answers).await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&imds.url())));
        let store = ParameterStore::at(Some(server.url()), "us-east-1", credentials, None);
        let dir = tempfile::tempdir().unwrap();
        let channel = channel(&Root::new(dir.path()), store);
        channel.spool.keep(&"a report", true);
        let nothing = Message::Nothing("/rollcall/prod/h100/i-0abc".into());
        for _ in 0..2 {
            let refused = channel.deliver(&nothing).await;
            assert!(matches!(refused, Delivery::Never(_)), "the right is missing: {refused:?}");
            assert!(channel.spool.is_used());
        }
        channel.spool.withdraw(true);
        let gone = channel.deliver(&nothing).await;
        assert!(matches!(gone, Delivery::Done), "{gone:?}");
        assert!(!channel.spool.is_used());
    }

    #[test]
    fn a_node_that_never_failed_has_nothing_to_delete() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let credentials = RoleCredentials::new(Arc::new(Imds::at("http://127.0.0.1:1")));
        let store = ParameterStore::at(None, "us-east-1", credentials, None);
        let channel = channel(&root, store);
        assert!(channel.wanted(&report(JoinOutcome::Ready, &[])).is_none());
        channel.spool.keep(&"no parameter", true);
        assert!(channel.wanted(&report(JoinOutcome::Ready, &[])).is_some());
        assert!(channel.delivered().is_none());
    }

    #[test]
    fn what_was_not_delivered_is_delivered_by_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let credentials = RoleCredentials::new(Arc::new(Imds::at("http://127.0.0.1:1")));
        let store = ParameterStore::at(None, "us-east-1", credentials, None);
        let channel = channel(&root, store);
        let failed = channel.wanted(&report(JoinOutcome::Failed, &[Reason::GpuLost])).unwrap();
        let Message::Report(parameter) = &failed else { panic!() };
        channel.spool.keep(parameter, false);
        assert_eq!(channel.wanted(&report(JoinOutcome::Joining, &[])), Some(failed.clone()));
        channel.spool.keep(parameter, true);
        assert_eq!(channel.wanted(&report(JoinOutcome::Joining, &[])), None);
    }
}
