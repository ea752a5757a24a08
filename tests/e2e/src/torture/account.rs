//! The emulated account: what it holds, what was called, and the rule that strikes one call.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::suite::poll;
use crate::torture::Blow;
use crate::torture::calls::{CALLER, Call};

/// How long what is on its way in or out may take; the emulator's durations are shortened.
const SETTLE: Duration = Duration::from_secs(20);

/// The emulator's control API.
#[derive(Clone, Debug)]
pub struct Account {
    http: reqwest::Client,
    endpoint: String,
}

impl Account {
    /// That of the emulator at `endpoint`.
    #[must_use]
    pub fn at(endpoint: &str) -> Self {
        Self { http: reqwest::Client::new(), endpoint: endpoint.to_owned() }
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let url = format!("{}/_control/{path}", self.endpoint);
        let what = || format!("could not call `{path}` of the emulator");
        let request = self.http.request(method, &url).body(body.to_string());
        let answer = request.send().await.with_context(what)?;
        let status = answer.status();
        let text = answer.text().await.with_context(what)?;
        ensure!(status.is_success(), "{}: {text}", what());
        serde_json::from_str(&text).with_context(what)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(reqwest::Method::GET, path, &json!({})).await
    }

    /// Everything that the account holds, but the fleet's lease: its number tells how often it changed
    /// hands.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn holds(&self) -> anyhow::Result<Vec<String>> {
        let mut lines: Vec<String> = serde_json::from_value(self.get("account").await?)?;
        lines.retain(|line| !line.contains("/lease/"));
        Ok(lines)
    }

    /// Whether a lease of any fleet is there.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn has_leases(&self) -> anyhow::Result<bool> {
        let lines: Vec<String> = serde_json::from_value(self.get("account").await?)?;
        Ok(lines.iter().any(|line| line.contains("/lease/")))
    }

    /// Waits until the account holds exactly that; says what is missing and what is too much.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn comes_to(&self, wanted: &[String]) -> anyhow::Result<()> {
        let mut found = Vec::new();
        let settled = poll::until(SETTLE, "the account is as it should be", async || {
            found = self.holds().await?;
            Ok((found == wanted).then_some(()))
        });
        if settled.await.is_ok() {
            return Ok(());
        }
        let beyond = |some: &[String], others: &[String]| -> Vec<String> {
            let mut rest = others.to_vec();
            let mut beyond = some.to_vec();
            beyond.retain(|line| match rest.iter().position(|other| other == line) {
                Some(place) => {
                    rest.remove(place);
                    false
                }
                None => true,
            });
            beyond
        };
        anyhow::bail!("missing {:?}, too much {:?}", beyond(wanted, &found), beyond(&found, wanted))
    }

    /// Every instance, those that are gone included, as plain JSON.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn instances(&self) -> anyhow::Result<Vec<Value>> {
        Ok(self.get("instances").await?.as_array().cloned().unwrap_or_default())
    }

    /// How many calls there were.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn calls_so_far(&self) -> anyhow::Result<usize> {
        let all = self.get("calls?since=0").await?;
        Ok(all.as_array().map_or(0, Vec::len))
    }

    /// The journal after that many calls.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn calls_since(&self, count: usize) -> anyhow::Result<Value> {
        self.get(&format!("calls?since={count}")).await
    }

    /// Lays a rule for one call of `control`.
    ///
    /// # Errors
    /// When the emulator does not take it.
    pub async fn aim(&self, blow: Blow, call: &Call) -> anyhow::Result<()> {
        let rule = json!({
            "service": call.service, "op": call.operation, "resource": call.resource,
            "skip": call.before, "action": blow.action(), "times": 1, "caller": CALLER,
        });
        self.lay(&json!([rule])).await
    }

    /// Lays rules.
    ///
    /// # Errors
    /// When the emulator does not take them.
    pub async fn lay(&self, rules: &Value) -> anyhow::Result<()> {
        self.send(reqwest::Method::POST, "rules", rules).await.map(drop)
    }

    /// Changes limits and quotas of the account.
    ///
    /// # Errors
    /// When the emulator does not take them.
    pub async fn limit(&self, limits: &Value) -> anyhow::Result<()> {
        self.send(reqwest::Method::POST, "limits", limits).await.map(drop)
    }

    /// Tells the account something that only time, money or AWS changes: `quotas`, `reservations`.
    ///
    /// # Errors
    /// When the emulator does not answer, or does not know it.
    pub async fn tell(&self, what: &str, body: &Value) -> anyhow::Result<()> {
        self.send(reqwest::Method::POST, what, body).await.map(drop)
    }

    /// Whether a call is held now; waits up to a second for one.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn holds_a_call(&self) -> anyhow::Result<bool> {
        Ok(self.get("held?wait=1").await?.as_array().is_some_and(|held| !held.is_empty()))
    }

    /// Lifts all rules and lets held calls go; true when no rule was left over.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn lift(&self) -> anyhow::Result<bool> {
        let spent = self.get("rules").await?.as_array().is_none_or(Vec::is_empty);
        self.send(reqwest::Method::DELETE, "rules", &json!({})).await?;
        self.send(reqwest::Method::DELETE, "held", &json!({})).await?;
        Ok(spent)
    }
}
