//! How fast `control` calls: a token bucket for each operation, as AWS keeps them for each account.
//!
//! Steps run side by side, and a fleet of fifty pools would run into the account's limits by itself;
//! every other caller of the account would feel that. Pure: when a call goes is reckoned from a time
//! that is handed in; [`super::connector`] waits.

use std::collections::HashMap;
use std::time::Duration;

/// Of what AWS lets the whole account have at once, what a run takes: calls that were held up on the
/// way arrive closer together than they left, and others call too.
const SHARE_OF_BURST: f64 = 0.75;
/// Of the calls a second that the account has for good.
const SHARE_OF_RATE: f64 = 0.9;

/// What AWS lets an account do with an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls at once.
    pub burst: f64,
    /// Calls a second after that.
    pub per_second: f64,
}

const fn rate(burst: f64, per_second: f64) -> Rate {
    Rate { burst, per_second }
}

/// EC2's buckets for an account and region, per operation (Amazon EC2 API throttling). What publishes
/// no figures (IAM, Auto Scaling, S3, tagging, logs) is called no faster.
const READS: Rate = rate(100.0, 20.0);
const CHANGES: Rate = rate(50.0, 5.0);
/// EKS publishes none for its control plane: careful, with room for a look at every pool of a fleet.
const EKS_READS: Rate = rate(80.0, 5.0);
const EKS_CHANGES: Rate = rate(10.0, 2.0);
/// Parameter Store's default throughput for reads (Systems Manager endpoints and quotas).
const SSM_READS: Rate = rate(40.0, 40.0);

/// What AWS lets an account do with an operation of a service, both by the SDK's names.
#[must_use]
pub fn rate_of(service: &str, operation: &str) -> Rate {
    let reads = ["Describe", "Get", "List", "Head", "Simulate"];
    let reads = reads.iter().any(|verb| operation.starts_with(verb));
    match (service, operation) {
        ("EC2", "CreateVpcEndpoint" | "DeleteVpcEndpoints" | "ModifyVpcEndpoint") => rate(4.0, 0.3),
        ("EC2", "CreateNatGateway" | "DeleteNatGateway") => rate(10.0, 1.0),
        ("EC2", "CreateTags" | "DeleteTags") => rate(100.0, 10.0),
        (
            "EC2",
            "CreateLaunchTemplateVersion"
            | "ModifyLaunchTemplate"
            | "CreateNetworkInterface"
            | "DeleteNetworkInterface"
            | "CreateVolume"
            | "DeleteVolume"
            | "TerminateInstances",
        ) => rate(100.0, 5.0),
        ("EKS", _) if reads => EKS_READS,
        ("EKS", _) => EKS_CHANGES,
        // Shared with every node that reports a failed join.
        ("SSM", "PutParameter") => rate(3.0, 3.0),
        ("SSM", "DescribeParameters") => rate(10.0, 5.0),
        ("SSM", _) if reads => SSM_READS,
        (_, _) if reads => READS,
        (_, _) => CHANGES,
    }
}

/// One operation's bucket.
#[derive(Clone, Debug, PartialEq)]
struct Bucket {
    rate: Rate,
    /// Below zero by the calls that wait.
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn full(rate: Rate, now: Duration) -> Self {
        let rate = Rate {
            burst: (rate.burst * SHARE_OF_BURST).max(1.0),
            per_second: rate.per_second * SHARE_OF_RATE,
        };
        Self { rate, tokens: rate.burst, at: now }
    }

    /// Takes a token: how long its call waits for it. First come, first served.
    fn take(&mut self, now: Duration) -> Duration {
        let filled = now.saturating_sub(self.at).as_secs_f64() * self.rate.per_second;
        self.tokens = (self.tokens + filled).min(self.rate.burst) - 1.0;
        self.at = self.at.max(now);
        Duration::from_secs_f64((-self.tokens).max(0.0) / self.rate.per_second)
    }
}

/// The buckets of a run.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    buckets: HashMap<(String, String), Bucket>,
}

impl Rates {
    /// How long a call of the operation waits, at a time since any fixed moment.
    pub fn take(&mut self, service: &str, operation: &str, now: Duration) -> Duration {
        let key = (service.to_owned(), operation.to_owned());
        let bucket = self
            .buckets
            .entry(key)
            .or_insert_with(|| Bucket::full(rate_of(service, operation), now));
        bucket.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The account's own bucket, as AWS keeps it: refuses where ours waits.
    struct Account {
        rate: Rate,
        tokens: f64,
        at: Duration,
    }

    impl Account {
        fn of(service: &str, operation: &str) -> Self {
            let rate = rate_of(service, operation);
            Self { rate, tokens: rate.burst, at: Duration::ZERO }
        }

        fn lets(&mut self, now: Duration) -> bool {
            let filled = (now - self.at).as_secs_f64() * self.rate.per_second;
            self.tokens = (self.tokens + filled).min(self.rate.burst);
            self.at = now;
            let lets = self.tokens >= 1.0;
            self.tokens -= if lets { 1.0 } else { 0.0 };
            lets
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// When each of `count` calls goes that are all wanted at once.
    fn at_once(service: &str, operation: &str, count: usize) -> Vec<Duration> {
        let mut rates = Rates::default();
        (0..count).map(|_| rates.take(service, operation, Duration::ZERO)).collect()
    }

    #[test]
    fn what_is_wanted_at_once_never_runs_into_the_accounts_limit() {
        let operations = [
            ("EC2", "CreateVpcEndpoint", 12),
            ("EC2", "CreateNatGateway", 40),
            ("EC2", "CreateLaunchTemplate", 400),
            ("EC2", "DescribeSubnets", 800),
            ("EKS", "CreateNodegroup", 100),
            ("EKS", "DescribeNodegroup", 500),
            ("SSM", "PutParameter", 60),
            ("IAM", "AttachRolePolicy", 200),
        ];
        for (service, operation, count) in operations {
            let mut account = Account::of(service, operation);
            let calls = at_once(service, operation, count);
            assert!(calls.iter().all(|at| account.lets(*at)), "{service} {operation}");
            assert!(calls.is_sorted() && calls[0].is_zero());
        }
    }

    #[test]
    fn ten_endpoints_take_the_accounts_own_time_and_no_more_than_a_half_beyond() {
        let rate = rate_of("EC2", "CreateVpcEndpoint");
        let least = (10.0 - rate.burst) / rate.per_second;
        let last = at_once("EC2", "CreateVpcEndpoint", 10).pop().unwrap().as_secs_f64();
        assert!((least..least * 1.5).contains(&last), "{last} against {least}");
    }

    #[test]
    fn a_bucket_fills_again_and_no_further_than_full() {
        let mut rates = Rates::default();
        let mut wait = |at: u32| rates.take("EC2", "CreateVpcEndpoint", SECOND * at);
        let burst = [wait(0), wait(0), wait(0)];
        assert_eq!(burst, [Duration::ZERO; 3]);
        assert!(wait(0) > SECOND * 3);
        let later = [wait(3600), wait(3600), wait(3600)];
        assert_eq!(later, [Duration::ZERO; 3]);
        assert!(wait(3600) > SECOND * 3);
        // A clock that stands still or goes back gives nothing.
        assert!(wait(3500) > SECOND * 6);
    }

    #[test]
    fn one_operation_does_not_wait_for_another() {
        let mut rates = Rates::default();
        for _ in 0..50 {
            rates.take("EC2", "CreateVpcEndpoint", Duration::ZERO);
        }
        assert!(rates.take("EC2", "DescribeVpcEndpoints", Duration::ZERO).is_zero());
        assert!(rates.take("SSM", "PutParameter", Duration::ZERO).is_zero());
    }

    #[test]
    fn a_look_at_fifty_pools_does_not_wait() {
        assert!(at_once("EKS", "DescribeNodegroup", 50).pop().unwrap().is_zero());
    }
}
