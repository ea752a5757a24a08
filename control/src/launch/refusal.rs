//! Why a pool's instances do not launch, and whether waiting helps: from its Auto Scaling group's
//! activities, because EKS says so only after 25 minutes. [`verdict`] is pure.

use contract::Reason;
use jiff::Timestamp;

use crate::aws::{Attempted as _, AwsError, Clients};

/// Activities that are looked at, newest first.
const ACTIVITIES: i32 = 50;
/// So often in a row everything but capacity fails before it counts: what was made a moment ago may not
/// be known everywhere yet.
const TRIES: usize = 3;
/// So often in a row capacity fails, in each zone that was tried.
const TRIES_IN_A_ZONE: usize = 2;

/// One try to launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Whether it failed; else it launched, or is under way.
    pub failed: bool,
    /// EC2's words.
    pub words: String,
    /// Where: the group's own description of the place.
    pub place: String,
}

/// Why nothing more of a pool launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub reason: Reason,
    /// EC2's words.
    pub words: String,
}

/// What EC2's words mean. Auto Scaling prints code and words, or the words alone.
#[must_use]
pub fn reason(words: &str) -> Reason {
    let says = |some: &[&str]| some.iter().any(|one| words.contains(one));
    if says(&["VcpuLimitExceeded", "vCPU capacity than your current vCPU limit"]) {
        Reason::VcpuQuotaExceeded
    } else if says(&["MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"]) {
        Reason::SpotLimitExceeded
    } else if says(&["ReservationCapacityExceeded", "reservation has insufficient capacity"]) {
        Reason::ReservationExceeded
    } else if says(&[
        "InsufficientInstanceCapacity",
        "UnfulfillableCapacity",
        "sufficient capacity",
    ]) || (says(&["do not have sufficient"]) && says(&["capacity"]))
    {
        Reason::CapacityInsufficient
    } else {
        Reason::LaunchTemplateInvalid
    }
}

/// Whether every try since the last launch failed, so often that another does not help. `tries` come
/// newest first, and the group launches in `zones` zones. Pure.
#[must_use]
pub fn verdict(tries: &[Try], zones: usize) -> Option<Refusal> {
    let failed: Vec<&Try> = tries.iter().take_while(|one| one.failed).collect();
    let newest = failed.first()?;
    let cause = reason(&newest.words);
    let alike = || failed.iter().filter(|one| reason(&one.words) == cause);
    let given_up = if cause == Reason::CapacityInsufficient {
        let mut places: Vec<&str> = alike().map(|one| one.place.as_str()).collect();
        let tries = places.len();
        places.sort_unstable();
        places.dedup();
        let each = |place: &&str| alike().filter(|o| o.place == **place).count() >= TRIES_IN_A_ZONE;
        places.len() >= zones.max(1) && tries >= TRIES && places.iter().all(each)
    } else {
        alike().count() >= TRIES
    };
    given_up.then(|| Refusal { reason: cause, words: newest.words.clone() })
}

/// The tries of an Auto Scaling group to launch since then, newest first: what failed before may have
/// been mended.
///
/// # Errors
/// [`AwsError`] when Auto Scaling does not answer or refuses.
pub async fn tries(clients: &Clients, group: &str, since: Timestamp) -> Result<Vec<Try>, AwsError> {
    let call = clients.autoscaling.describe_scaling_activities().auto_scaling_group_name(group);
    let answer = call.max_records(ACTIVITIES).send().await;
    let answer = answer.attempted(|| format!("read the scaling activities of `{group}`"))?;
    let launches = answer.activities().iter().filter(|activity| {
        let began = activity.start_time().map(|time| time.secs());
        began.is_some_and(|began| began >= since.as_second())
            && activity.description().is_some_and(|what| what.starts_with("Launching"))
    });
    Ok(launches
        .map(|activity| Try {
            failed: activity.status_code().is_some_and(|code| code.as_str() == "Failed"),
            words: activity.status_message().unwrap_or("no message").to_owned(),
            place: activity.details().unwrap_or_default().to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CAPACITY: &str = "We currently do not have sufficient p5.48xlarge capacity in the \
                               Availability Zone you requested (us-east-1a). Launching EC2 instance \
                               failed.";
    const VCPUS: &str = "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested \
                         more vCPU capacity than your current vCPU limit of 32 allows.";

    fn failed(words: &str, place: &str) -> Try {
        Try { failed: true, words: words.into(), place: place.into() }
    }

    fn launched() -> Try {
        Try { failed: false, words: String::new(), place: "a".into() }
    }

    #[test]
    fn words_and_codes_have_one_reason() {
        let spot = "MaxSpotInstanceCountExceeded - Max spot instance count exceeded";
        let held = "ReservationCapacityExceeded";
        for (words, wanted) in [
            (NO_CAPACITY, Reason::CapacityInsufficient),
            ("InsufficientInstanceCapacity - x", Reason::CapacityInsufficient),
            (VCPUS, Reason::VcpuQuotaExceeded),
            (spot, Reason::SpotLimitExceeded),
            (held, Reason::ReservationExceeded),
            ("The security group 'sg-1' does not exist", Reason::LaunchTemplateInvalid),
        ] {
            assert_eq!(reason(words), wanted, "{words}");
        }
    }

    #[test]
    fn capacity_is_given_up_when_every_zone_had_none_twice() {
        let tried = |places: &[&str]| -> Vec<Try> {
            places.iter().map(|place| failed(NO_CAPACITY, place)).collect()
        };
        let reason = |tries: &[Try], zones| verdict(tries, zones).map(|refusal| refusal.reason);
        let given_up = Some(Reason::CapacityInsufficient);
        assert_eq!(reason(&tried(&["a", "b", "a", "b"]), 2), given_up);
        assert_eq!(reason(&tried(&["a", "b", "a"]), 2), None);
        assert_eq!(reason(&tried(&["a", "a", "a", "a"]), 2), None);
        assert_eq!(reason(&tried(&["a", "a", "a"]), 1), given_up);
        // One that launched in between: there is some.
        let mut between = tried(&["a", "b", "a", "b"]);
        between.insert(2, launched());
        assert_eq!(reason(&between, 2), None);
        assert_eq!(reason(&[], 2), None);
    }

    #[test]
    fn what_may_only_be_late_is_tried_three_times() {
        let late = "Invalid IAM Instance Profile name";
        let two = vec![failed(late, "a"), failed(late, "b")];
        assert_eq!(verdict(&two, 2), None);
        let three = [two, vec![failed(late, "a")]].concat();
        let refusal = verdict(&three, 2).unwrap();
        assert_eq!(refusal.reason, Reason::LaunchTemplateInvalid);
        assert_eq!(refusal.words, late);
        let mixed = vec![failed(VCPUS, "a"), failed(late, "b"), failed(VCPUS, "a")];
        assert_eq!(verdict(&mixed, 2), None);
    }
}
