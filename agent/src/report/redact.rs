//! Takes secrets out of what leaves the process: summaries, evidence, log tails, configuration.
//!
//! What looks like a secret goes by its form: cluster tokens, AWS keys, passwords in URLs, private
//! keys, long random words, and the value of whatever is called a password, token or secret. What the
//! user data calls so goes wherever it turns up, in whatever form a script has printed it.

use std::collections::BTreeSet;

use contract::Finding;

/// What stands in a secret's place.
const GONE: &str = "[redacted]";
/// The beginning of a cluster token, which is a signed URL in base64.
const CLUSTER_TOKEN: &str = "k8s-aws-v1.";
/// Words in the name of a value that is nobody's business.
const SECRET_NAMES: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "signature",
    "apikey",
    "api_key",
    "private_key",
];
/// The shortest value that is taken for a secret: shorter ones would cut holes into plain words.
const SHORTEST: usize = 6;
/// The length of a secret access key; session tokens are longer.
const RANDOM_WORD: usize = 40;

/// Knows the secrets that have no form of their own.
#[derive(Clone, Default)]
pub struct Redactor {
    known: BTreeSet<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("known", &self.known.len()).finish()
    }
}

impl Redactor {
    /// Learns what user data (or any other configuration) calls a secret.
    pub fn learn(&mut self, text: &str) {
        for line in text.lines() {
            let named = assignments(line)
                .filter(|(name, value)| is_secret_name(name) && value.len() >= SHORTEST);
            self.known.extend(named.map(|(_, value)| value.to_owned()));
        }
    }

    /// A finding without its secrets.
    #[must_use]
    pub fn clean(&self, mut finding: Finding) -> Finding {
        finding.summary = self.scrub(&finding.summary);
        for line in &mut finding.evidence {
            *line = self.scrub(line);
        }
        finding
    }

    /// The text without its secrets.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), GONE);
            }
        }
        let text = without_private_keys(&text);
        let lines: Vec<String> = text.split('\n').map(scrub_line).collect();
        lines.join("\n")
    }
}

fn scrub_line(line: &str) -> String {
    let line = without_authorization(line);
    let line = without_user_info(&line);
    let line = without_named_values(&line);
    without_random_words(&line)
}

/// `-----BEGIN … PRIVATE KEY-----` to its end, or to the end of the text.
fn without_private_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let title = block.lines().next().unwrap_or_default();
        let end = block.find("-----END ").map(|at| {
            let tail = &block[at..];
            at + tail[9..].find("-----").map_or(tail.len(), |dashes| 9 + dashes + 5)
        });
        let end = end.unwrap_or(block.len());
        out.push_str(&rest[..start]);
        out.push_str(if title.contains("PRIVATE KEY") { GONE } else { &block[..end] });
        rest = &block[end..];
    }
    out.push_str(rest);
    out
}

/// `Authorization: …` to the end of the line.
fn without_authorization(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    match lower.find("authorization:").or_else(|| lower.find("bearer ")) {
        Some(at) => {
            let head = &line[..at];
            let word = line[at..].split([':', ' ']).next().unwrap_or_default();
            format!("{head}{word}: {GONE}")
        }
        None => line.to_owned(),
    }
}

/// `https://user:password@host` becomes `https://[redacted]@host`.
fn without_user_info(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail
            .find(|c: char| {
                c == '/' || c == '?' || c == '#' || c.is_whitespace() || "\"'<>".contains(c)
            })
            .unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(sign) => {
                out.push_str(GONE);
                rest = &tail[sign..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

/// `NAME=value`, `name: value`, `"name": "value"` and `&name=value`, where the name says secret.
fn without_named_values(line: &str) -> String {
    let hits: Vec<String> = assignments(line)
        .filter(|(name, value)| is_secret_name(name) && is_value(value))
        .map(|(_, value)| value.to_owned())
        .collect();
    hits.iter().fold(line.to_owned(), |line, value| line.replace(value.as_str(), GONE))
}

/// Words that only chance makes: keys and session tokens without a name.
fn without_random_words(line: &str) -> String {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_inside) {
        let (head, tail) = rest.split_at(start);
        out.push_str(head);
        let end = tail.find(|c| !is_inside(c)).unwrap_or(tail.len());
        let (word, tail) = tail.split_at(end);
        let is_token = CLUSTER_TOKEN.ends_with('.') && out.ends_with(CLUSTER_TOKEN);
        out.push_str(if is_token || is_random(word) { GONE } else { word });
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_random(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let is_key_id = word.len() == 20
        && (word.starts_with("AKIA") || word.starts_with("ASIA"))
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    is_key_id
        || (word.len() >= RANDOM_WORD
            // Paths and names are words between separators; chance rarely makes a separator.
            && word.chars().filter(|c| "/_-".contains(*c)).count() * 10 <= word.len()
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit))
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|word| name.contains(word))
}

/// Whether what follows a name is a value and not prose: `no token: connection refused`.
fn is_value(value: &str) -> bool {
    value.len() >= SHORTEST
        && value != GONE
        && (value.len() >= 16 || value.chars().any(|c| !c.is_ascii_lowercase() && c != '.'))
}

/// The `name` and `value` of what a line assigns: after `=` or `:`, quoted or not.
fn assignments(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    line.match_indices(['=', ':']).filter_map(move |(at, _)| {
        let name = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let start = name.rfind(|c| !is_name(c)).map_or(0, |at| at + 1);
        let name = name.get(start..)?;
        let rest = line[at + 1..].trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => rest[1..].split(quote).next()?,
            None => rest.split(|c: char| c.is_whitespace() || "&,;\"'}".contains(c)).next()?,
        };
        (!name.is_empty() && !value.is_empty()).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_what_explains_the_fault_stays() {
        let redactor = Redactor::default();
        let token = format!("{CLUSTER_TOKEN}aHR0cHM6Ly9zdHMudXMtZWFzdC0xLmFtYXpvbmF3cy5jb20");
        for (text, clean) in [
            (
                "401 for k8s-aws-v1.aHR0cHM6Ly9zdHMu after 3 s",
                "401 for k8s-aws-v1.[redacted] after 3 s",
            ),
            (token.as_str(), "k8s-aws-v1.[redacted]"),
            (
                "proxy http://joe:s3cret@proxy.corp:3128 refused",
                "proxy http://[redacted]@proxy.corp:3128 refused",
            ),
            (
                "HTTPS_PROXY=https://joe:p@ss@10.0.0.1:3128/",
                "HTTPS_PROXY=https://[redacted]@10.0.0.1:3128/",
            ),
            ("key AKIAIOSFODNN7EXAMPLE is used", "key [redacted] is used"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "[redacted]"),
            (r#""SecretAccessKey" : "short-Key-1","#, r#""SecretAccessKey" : "[redacted]","#),
            ("export DB_PASSWORD='hunter22!'", "export DB_PASSWORD='[redacted]'"),
            ("GET /?X-Amz-Signature=670da14509382c97&x=1", "GET /?X-Amz-Signature=[redacted]&x=1"),
            ("authorization: Bearer abc.def", "authorization: [redacted]"),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
                "a\n[redacted]\nb",
            ),
        ] {
            assert_eq!(redactor.scrub(text), clean);
        }
        for plain in [
            "could not get a token: connection refused",
            "ImdsTokenDenied: the metadata service answers 403 to the token request",
            "GPU-5c8f2a31-7b6e-4d0a-9f3e-2b1c4d5e6f70 has fallen off the bus",
            "/var/lib/kubelet/pods/6E1c2b9e-6f0b-4c39-9c55-0f4f9f1f2a3b/volumes/kubernetes.io~projected",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "https://0123456789ABCDEF.gr7.us-east-1.eks.amazonaws.com/healthz",
            "arn:aws:iam::111122223333:role/prod-gpu-node",
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            "nvidia 0000:b9:00.0: Xid 79, pid=1234, name=python",
        ] {
            assert_eq!(redactor.scrub(plain), plain);
        }
    }

    #[test]
    fn what_user_data_calls_a_secret_goes_in_any_form() {
        let mut redactor = Redactor::default();
        redactor.learn("#!/bin/sh\nexport WANDB_API_KEY=cafe-babe\nregistry_password: \"open sesame\"\nREGION=us-east-1\n");
        let log = "cloud-init[1]: + login -p open sesame; key cafe-babe in us-east-1";
        let clean = "cloud-init[1]: + login -p [redacted]; key [redacted] in us-east-1";
        assert_eq!(redactor.scrub(log), clean);
        assert!(!format!("{redactor:?}").contains("cafe"));
    }

    #[test]
    fn never_panics_on_what_a_log_may_hold() {
        let redactor = Redactor::default();
        for text in [
            "://@",
            "=",
            "\"token\":\"",
            "é=ü password=é",
            "-----BEGIN PRIVATE KEY-----",
            "bearer ",
            ":::===",
        ] {
            let _ = redactor.scrub(text);
        }
    }
}
