//! `control token` beside the AWS CLI: both sign the same request, whatever endpoint variables say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::ExitCode;
use e2e::Programs;
use e2e::programs::Output;
use serde_json::Value;

const KEY: &str = "ASIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI+K7MDENG/bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "IQoJb3JpZ2luX2VjEXAMPLE//+to/ken==";

/// The AWS CLI that `make e2e-setup` got, or why there is none.
fn aws_cli() -> Result<PathBuf, &'static str> {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/parts/setup.sh");
    let folder = Command::new(setup).arg("--where").output().unwrap();
    let folder = String::from_utf8(folder.stdout).unwrap();
    let listed = std::fs::read(Path::new(folder.trim()).join("parts.json"));
    let listed = listed.map_err(|_| "the real parts are not there: make e2e-setup")?;
    let parts: Value = serde_json::from_slice(&listed).unwrap();
    let path = parts["awscli"]["path"].as_str().filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or("make e2e-setup could not get the AWS CLI")
}

/// The token in the exec credential that `program` prints.
async fn token(program: &str, args: &[&str], region: &str, more: &[(&str, &str)]) -> String {
    let mut programs = Programs::of_this_build().unwrap();
    let base = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SESSION),
        ("AWS_REGION", region),
        ("AWS_DEFAULT_REGION", region),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    let all = base.iter().chain(more);
    programs.env = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let said =
        programs.run(program, args, Output::Captured, Duration::from_secs(60)).await.unwrap();
    assert_eq!(said.code, ExitCode::Success as i32, "{program}: {}", said.stderr);
    let credential: Value = serde_json::from_str(&said.stdout).unwrap();
    credential["status"]["token"].as_str().unwrap().to_owned()
}

/// A token's place and its parameters, in whatever order.
fn taken_apart(token: &str) -> (String, BTreeMap<String, String>) {
    let encoded = token.strip_prefix(eks_token::PREFIX).unwrap();
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
    let (place, query) = url.split_once('?').unwrap();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    (place.to_owned(), query.split('&').map(pair).collect())
}

/// What ought to have been minted at the moment that a token names.
fn expected(token: &str, region: &str) -> (String, BTreeMap<String, String>) {
    let date = &taken_apart(token).1["X-Amz-Date"];
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap();
    let at: SystemTime = date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().into();
    let credentials = Credentials::new(KEY, SECRET, Some(SESSION.to_owned()), None, "test");
    taken_apart(eks_token::mint(&credentials, region, "prod", at).unwrap().expose())
}

#[tokio::test]
async fn control_signs_for_the_regions_own_sts_whatever_the_variables_say() {
    let elsewhere = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
    ];
    for (region, place) in [
        ("us-east-1", "https://sts.us-east-1.amazonaws.com/"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"),
    ] {
        let token =
            token("control", &["token", "--cluster-name", "prod"], region, &elsewhere).await;
        assert_eq!(taken_apart(&token), expected(&token, region));
        assert_eq!(taken_apart(&token).0, place);
    }
}

#[tokio::test]
async fn the_aws_cli_signs_the_same() {
    let cli = match aws_cli() {
        Ok(cli) => cli,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let args = ["eks", "get-token", "--cluster-name", "prod", "--output", "json"];
    for region in ["us-east-1", "cn-north-1"] {
        let token = token(cli.to_str().unwrap(), &args, region, &[]).await;
        assert_eq!(taken_apart(&token), expected(&token, region));
    }
}
