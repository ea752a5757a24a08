//! Two operators on one ground, interleaved by a seeded schedule that moves the clock, delays calls
//! before and after they take effect, and answers reads from before the last write.
//!
//! What is assumed of the world is what the times in [`record`](super::super::record) are made for: a
//! call has taken effect within [`MARGIN`] or never does, and clocks differ by less than [`SKEW`].

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::stack::lease::record::SKEW;

const SCHEDULES: u64 = 200;
const START: i64 = 1_795_204_800_000;

/// A small generator, so that a seed names a schedule for ever (Steele and Vigna's splitmix64).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What both operators share.
#[derive(Debug)]
struct Account {
    chance: Chance,
    /// True time in milliseconds.
    time: i64,
    leases: Vec<(u64, Record)>,
    /// As it was before the last write, and who has not yet seen more than that.
    before: Vec<(u64, Record)>,
    behind: Vec<&'static str>,
    /// Who changed the fleet, under which lease.
    changes: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug)]
struct Side {
    name: &'static str,
    /// How far this machine's clock is off, in milliseconds.
    off: i64,
    account: Arc<Mutex<Account>>,
}

fn at(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap()
}

/// Lets the schedule choose who goes on.
async fn turn() {
    let mut been = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut been, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn never_answered() -> AwsError {
    AwsError::Unreachable { attempted: "call".into(), source: "timed out".into() }
}

impl Side {
    fn with<T>(&self, look: impl FnOnce(&mut Account) -> T) -> T {
        look(&mut self.account.lock().unwrap())
    }

    fn true_time(&self) -> i64 {
        self.with(|account| account.time)
    }

    /// A call that takes effect a while after it was sent, or never; its answer takes a while too.
    async fn write<T>(&self, effect: impl FnOnce(&mut Account) -> T) -> Result<T, AwsError> {
        let sent = self.true_time();
        turn().await;
        if self.true_time() - sent > millis(MARGIN) {
            return Err(never_answered());
        }
        let answer = self.with(|account| {
            account.before = account.leases.clone();
            account.behind = vec!["a", "b"];
            effect(account)
        });
        turn().await;
        Ok(answer)
    }

    /// Changes the fleet as `up` does, as long as it may.
    async fn work(self, claim: Claim) {
        for _ in 0..4 {
            let Ok(holding) = take(&self, &claim).await else {
                turn().await;
                continue;
            };
            for step in 0..4 {
                if step % 2 == 1 && renew(&self, &claim, &holding).await.is_err() {
                    return;
                }
                if prove(&self, &claim, &holding).await.is_err() {
                    return;
                }
                let (name, number) = (self.name, holding.number());
                // A step that never took effect is no change.
                let _ = self.write(|account| account.changes.push((name, number))).await;
            }
            let _ = release(&self, &claim, &holding).await;
            return;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

impl Ground for Side {
    async fn list(&self) -> Result<Vec<(u64, Record)>, AwsError> {
        turn().await;
        let seen = self.with(|account| {
            let behind = account.behind.iter().position(|name| *name == self.name);
            match behind.filter(|_| account.chance.below(2) == 0) {
                Some(_) => account.before.clone(),
                None => {
                    account.behind.retain(|name| *name != self.name);
                    account.leases.clone()
                }
            }
        });
        self.with(|account| account.behind.retain(|name| *name != self.name));
        turn().await;
        Ok(seen)
    }

    async fn create(&self, number: u64, record: &Record) -> Result<bool, AwsError> {
        self.write(|account| {
            let free = account.leases.iter().all(|(taken, _)| *taken != number);
            if free {
                account.leases.push((number, record.clone()));
                account.leases.sort_by_key(|(number, _)| *number);
            }
            free
        })
        .await
    }

    async fn replace(&self, number: u64, record: &Record) -> Result<(), AwsError> {
        self.write(|account| {
            account.leases.retain(|(other, _)| *other != number);
            account.leases.push((number, record.clone()));
            account.leases.sort_by_key(|(number, _)| *number);
        })
        .await
    }

    async fn delete(&self, numbers: &[u64]) -> Result<(), AwsError> {
        self.write(|account| account.leases.retain(|(number, _)| !numbers.contains(number))).await
    }

    fn now(&self) -> Timestamp {
        at(self.true_time() + self.off)
    }

    fn is_gone(&self, _: &Process) -> bool {
        false
    }

    async fn pause(&self) {
        turn().await;
    }
}

fn claim(name: &'static str) -> Claim {
    let process = Process { host: name.into(), space: None, pid: 1, started: None };
    Claim { run: name.into(), holder: format!("arn:aws:iam::1:user/{name}"), process }
}

/// Plays one schedule; answers who changed the fleet, under which lease, in order.
fn play(seed: u64) -> Vec<(&'static str, u64)> {
    let mut chance = Chance(seed);
    let offsets = [0, 1].map(|_| {
        i64::try_from(chance.below(millis(SKEW).unsigned_abs())).unwrap() - millis(SKEW) / 2
    });
    // Another's lease, which has ended just now, or ends soon.
    let over = i64::try_from(chance.below(60_000)).unwrap();
    let old =
        claim("gone").record(at(START - 500_000), at(START - millis(LASTING) - over + 20_000));
    let account = Arc::new(Mutex::new(Account {
        chance,
        time: START,
        leases: vec![(7, old.clone())],
        before: vec![(7, old)],
        behind: Vec::new(),
        changes: Vec::new(),
    }));
    let side = |name, off| Side { name, off, account: Arc::clone(&account) };
    let mut running: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
        Box::pin(side("a", offsets[0]).work(claim("a"))),
        Box::pin(side("b", offsets[1]).work(claim("b"))),
    ];
    while !running.is_empty() {
        let next = {
            let mut account = account.lock().unwrap();
            // Mostly a moment; now and then a process sleeps for as long as a lease lasts.
            let longest = if account.chance.below(10) == 0 { 120_000 } else { 4_000 };
            account.time += i64::try_from(account.chance.below(longest)).unwrap();
            let count = running.len().try_into().unwrap();
            usize::try_from(account.chance.below(count)).unwrap()
        };
        // One that is chosen runs on for a while, so that one often sleeps while the other works.
        let polls = account.lock().unwrap().chance.below(12);
        for _ in 0..=polls {
            account.lock().unwrap().time += 50;
            if running[next].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                drop(running.remove(next));
                break;
            }
        }
    }
    let mut account = account.lock().unwrap();
    std::mem::take(&mut account.changes)
}

#[test]
fn never_two_that_change_the_fleet() {
    let (mut worked, mut both) = (0, 0);
    for seed in 0..SCHEDULES {
        let changes = play(seed);
        let in_turn = changes.is_sorted_by_key(|(_, number)| *number);
        assert!(in_turn, "schedule {seed}: {changes:?}");
        let alone =
            changes.chunk_by(|x, y| x.1 == y.1).all(|run| run.iter().all(|c| c.0 == run[0].0));
        assert!(alone, "schedule {seed}: two under one number: {changes:?}");
        worked += usize::from(!changes.is_empty());
        both += usize::from(["a", "b"].iter().all(|name| changes.iter().any(|c| c.0 == *name)));
    }
    // The schedules prove nothing unless somebody gets to work, and now and then one after the other.
    assert!(worked > 100 && both > 20, "{worked} of {SCHEDULES} worked, in {both} both");
}

/// Polls a future that waits for nobody but its own turns.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn alone() -> (Side, Arc<Mutex<Account>>) {
    let account = Arc::new(Mutex::new(Account {
        chance: Chance(1),
        time: START,
        leases: Vec::new(),
        before: Vec::new(),
        behind: Vec::new(),
        changes: Vec::new(),
    }));
    (Side { name: "a", off: 0, account: Arc::clone(&account) }, account)
}

#[test]
fn the_second_is_told_who_holds_it() {
    let (side, _) = alone();
    finish(take(&side, &claim("a"))).unwrap();
    let LeaseError::Held(by) = finish(take(&side, &claim("b"))).unwrap_err() else {
        panic!("held by nobody")
    };
    assert_eq!((by.holder.as_str(), by.since), ("arn:aws:iam::1:user/a", at(START)));
}

#[test]
fn what_is_given_back_is_free_at_once_and_old_ones_are_removed() {
    let (side, account) = alone();
    for round in 0..5 {
        let claim = claim(["a", "b", "c", "d", "e"][round]);
        let holding = finish(take(&side, &claim)).unwrap();
        assert_eq!(holding.number(), u64::try_from(round).unwrap() + 1);
        finish(release(&side, &claim, &holding)).unwrap();
    }
    let left: Vec<u64> = account.lock().unwrap().leases.iter().map(|(n, _)| *n).collect();
    assert_eq!(left, [4, 5]);
}

#[test]
fn a_holder_that_was_not_renewed_in_time_stops_before_another_may_begin() {
    let (side, account) = alone();
    let holding = finish(take(&side, &claim("a"))).unwrap();
    account.lock().unwrap().time += millis(LASTING - MARGIN) + 1_000;
    let expired = finish(prove(&side, &claim("a"), &holding)).unwrap_err();
    assert!(matches!(expired, LeaseError::Expired), "{expired:?}");
    assert!(matches!(finish(take(&side, &claim("b"))), Err(LeaseError::Held(_))));
    account.lock().unwrap().time += millis(MARGIN + SKEW);
    assert_eq!(finish(take(&side, &claim("b"))).unwrap().number(), 2);
    assert!(matches!(finish(renew(&side, &claim("a"), &holding)), Err(LeaseError::Held(_))));
}

#[test]
fn the_end_of_down_leaves_none() {
    let (side, account) = alone();
    for name in ["a", "b"] {
        let holding = finish(take(&side, &claim(name))).unwrap();
        finish(release(&side, &claim(name), &holding)).unwrap();
    }
    let holding = finish(take(&side, &claim("c"))).unwrap();
    finish(remove(&side, &holding)).unwrap();
    assert_eq!(account.lock().unwrap().leases, []);
}
