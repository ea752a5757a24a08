//! What EC2 announces about this instance, and whether it has been put aside in a warm pool.
//!
//! The metadata service is asked; what it does not say or does not answer counts as nothing
//! announced, for a blip there must never keep a node out.

use std::time::Duration;

use contract::{Finding, Phase, Reason};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::aws::Imds;
use crate::host::Deadline;

/// How long before its end EC2 begins to terminate the instances of a Capacity Block, and how much
/// earlier it says so (EC2 User Guide, "Monitor Capacity Blocks").
const BLOCK_ENDS_EARLY: Duration = Duration::from_secs(30 * 60);
const BLOCK_WARNING: Duration = Duration::from_secs(10 * 60);

/// Who says it, for whoever keeps what is said.
pub const SOURCE: &str = "EC2";

/// How long one round of questions may take.
pub const ROUND: Duration = Duration::from_secs(2);

/// Between two looks: EC2 recommends five seconds for interruptions; whoever waits in a warm pool
/// must not make its pods wait.
pub const POLL: Duration = Duration::from_secs(5);
/// See [`POLL`].
pub const WARM_POLL: Duration = Duration::from_secs(1);

/// What is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// EC2 takes a spot instance back.
    pub spot: Option<SpotAction>,
    /// Since when EC2 recommends to move off a spot instance.
    pub rebalance: Option<Rebalance>,
    /// What EC2 will do to the instance or its host.
    pub events: Vec<Event>,
    /// Where an Auto Scaling group wants the instance: `InService`, `Warmed:Running`, …
    pub lifecycle: Option<String>,
}

/// `spot/instance-action`: two minutes are left.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpotAction {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When.
    pub time: String,
}

/// `events/recommendations/rebalance`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// When EC2 said so.
    pub notice_time: String,
}

/// One entry of `events/maintenance/scheduled`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// `system-reboot`, `instance-retirement`, …
    pub code: String,
    /// What it is, in words.
    pub description: String,
    /// Its id.
    pub event_id: String,
    /// `active`, `completed`, `canceled`.
    pub state: String,
    /// Earliest and latest time.
    pub not_before: String,
    /// See [`Self::not_before`].
    pub not_after: String,
}

/// Asks for everything at once; once, for whoever asks looks again anyway.
pub async fn gather(imds: &Imds, deadline: Deadline) -> Facts {
    let (spot, rebalance, events, lifecycle) = tokio::join!(
        document(imds, "meta-data/spot/instance-action", deadline),
        document(imds, "meta-data/events/recommendations/rebalance", deadline),
        document::<Vec<Event>>(imds, "meta-data/events/maintenance/scheduled", deadline),
        imds.once("meta-data/autoscaling/target-lifecycle-state", deadline),
    );
    let lifecycle = lifecycle.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    Facts { spot, rebalance, events: events.unwrap_or_default(), lifecycle }
}

async fn document<T: DeserializeOwned>(imds: &Imds, path: &str, deadline: Deadline) -> Option<T> {
    let bytes = imds.once(path, deadline).await?;
    match serde_json::from_slice(&bytes) {
        Ok(document) => Some(document),
        Err(error) => {
            tracing::debug!(%error, path, "a notice that cannot be read");
            None
        }
    }
}

impl Facts {
    /// Whether the instance waits in a warm pool, and how: `Warmed:Running`.
    #[must_use]
    pub fn warm_pool(&self) -> Option<&str> {
        self.lifecycle.as_deref().filter(|state| state.starts_with("Warmed:"))
    }
}

/// What the announcements mean for a node that joins.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(SpotAction { action, time }) = &facts.spot {
        let what = format!("EC2 takes this spot instance back: `{action}` at {time}");
        let seen = format!("IMDS spot/instance-action: {action} at {time}");
        findings.push(finding(Reason::SpotInterrupted, what).with_evidence(seen));
    }
    if let Some(Rebalance { notice_time }) = &facts.rebalance {
        let what = "EC2 recommends to move off this spot instance: it is likely to be taken back";
        let seen = format!("IMDS events/recommendations/rebalance: since {notice_time}");
        findings.push(finding(Reason::CapacityEnding, what).with_evidence(seen));
    }
    for event in facts.events.iter().filter(|event| event.state == "active") {
        let Event { code, description, event_id, not_before, not_after, .. } = event;
        let until = if not_after.is_empty() { String::new() } else { format!(" to {not_after}") };
        let what = format!("`{code}` is scheduled for {not_before}{until}: {description}");
        let seen = format!("IMDS events/maintenance/scheduled: {event_id} {code}");
        findings.push(finding(Reason::MaintenanceScheduled, what).with_evidence(seen));
    }
    findings
}

/// Whether the Capacity Block that the instance runs in is about to end.
#[must_use]
pub fn block_ends(ends: Option<&str>, now: Timestamp) -> Option<Finding> {
    let ends: Timestamp = ends?.parse().ok()?;
    let left = ends.duration_since(now);
    let warning = BLOCK_ENDS_EARLY + BLOCK_WARNING;
    (left <= warning.try_into().unwrap_or_default()).then(|| {
        let what = format!(
            "the Capacity Block ends at {ends}, and EC2 begins to terminate its instances 30 \
             minutes before"
        );
        finding(Reason::CapacityEnding, what)
    })
}

/// They belong to the gate that they would keep kubelet behind.
fn finding(reason: Reason, summary: impl Into<String>) -> Finding {
    Finding::new(reason, Phase::Register, summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;

    fn named(facts: &Facts) -> Vec<String> {
        findings(facts).iter().map(|f| f.reason.to_string()).collect()
    }

    fn event(state: &str) -> Event {
        Event {
            code: "system-reboot".into(),
            description: "scheduled reboot".into(),
            event_id: "instance-event-0d59937288b749b32".into(),
            state: state.into(),
            not_before: "21 Jan 2027 09:00:43 GMT".into(),
            not_after: "21 Jan 2027 09:17:23 GMT".into(),
        }
    }

    #[test]
    fn announcements_have_names() {
        let spot = SpotAction { action: "terminate".into(), time: "2026-11-20T20:08:22Z".into() };
        let rebalance = Rebalance { notice_time: "2026-11-20T20:00:22Z".into() };
        let none = Facts::default;
        for (facts, reasons) in [
            (none(), &[][..]),
            (Facts { spot: Some(spot.clone()), ..none() }, &["SpotInterrupted"][..]),
            (Facts { rebalance: Some(rebalance.clone()), ..none() }, &["CapacityEnding"]),
            (Facts { events: vec![event("active")], ..none() }, &["MaintenanceScheduled"]),
            (Facts { events: vec![event("completed"), event("canceled")], ..none() }, &[]),
            (
                Facts { spot: Some(spot), rebalance: Some(rebalance), ..none() },
                &["SpotInterrupted", "CapacityEnding"],
            ),
        ] {
            assert_eq!(named(&facts), reasons, "{facts:?}");
        }
        let found = findings(&Facts { events: vec![event("active")], ..none() });
        assert_eq!(
            found[0].summary,
            "`system-reboot` is scheduled for 21 Jan 2027 09:00:43 GMT to 21 Jan 2027 09:17:23 \
             GMT: scheduled reboot"
        );
    }

    #[test]
    fn a_block_is_about_to_end_40_minutes_before() {
        let now: Timestamp = "2026-11-20T20:00:00Z".parse().unwrap();
        for (ends, is_named) in [
            (None, false),
            (Some("2026-11-20T20:41:00Z"), false),
            (Some("2026-11-20T20:39:00Z"), true),
            (Some("2026-11-20T11:30:00Z"), true),
            (Some("soon"), false),
        ] {
            assert_eq!(block_ends(ends, now).is_some(), is_named, "{ends:?}");
        }
    }

    #[test]
    fn only_a_warmed_instance_waits() {
        let state = |text: &str| Facts { lifecycle: Some(text.into()), ..Facts::default() };
        assert_eq!(state("Warmed:Running").warm_pool(), Some("Warmed:Running"));
        for text in ["InService", "Standby", "Terminated", ""] {
            assert_eq!(state(text).warm_pool(), None, "{text}");
        }
        assert_eq!(Facts::default().warm_pool(), None);
    }

    #[tokio::test]
    async fn reads_what_the_service_says_and_nothing_into_what_it_does_not() {
        let server = Server::start(|request| match request.split(' ').nth(1) {
            Some("/latest/meta-data/spot/instance-action") => {
                Answer::ok(r#"{"action":"stop","time":"2026-11-20T20:08:22Z"}"#)
            }
            Some("/latest/meta-data/events/maintenance/scheduled") => Answer::ok("not JSON"),
            Some("/latest/meta-data/events/recommendations/rebalance") => Answer::status(503, ""),
            Some("/latest/meta-data/autoscaling/target-lifecycle-state") => {
                Answer::ok("Warmed:Stopped\n")
            }
            _ => imds_answers(request),
        })
        .await;
        let facts =
            gather(&Imds::at(&server.url()), Deadline::within(Duration::from_secs(5))).await;
        assert_eq!(facts.spot.as_ref().unwrap().action, "stop");
        assert_eq!((&facts.rebalance, &facts.events), (&None, &vec![]));
        assert_eq!(facts.warm_pool(), Some("Warmed:Stopped"));

        let gone = Imds::at("http://127.0.0.1:1");
        let facts = gather(&gone, Deadline::within(Duration::from_secs(1))).await;
        assert_eq!(facts, Facts::default());
    }
}
