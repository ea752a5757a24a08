//! Our tokens against the AWS CLI's own, which `golden/record.py` recorded at a frozen clock.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/aws-cli.json")).unwrap()
}

fn time(text: &Value) -> SystemTime {
    text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().into()
}

fn credentials(case: &Value) -> Credentials {
    let text = |field: &str| case[field].as_str().map(str::to_owned);
    let (key, secret) = (text("accessKeyId").unwrap(), text("secretAccessKey").unwrap());
    Credentials::new(key, secret, text("sessionToken"), None, "golden")
}

/// The presigned URL's place, and its parameters, whose order is the signer's own: the signature
/// covers them sorted.
fn taken_apart(token: &str) -> (String, BTreeMap<String, String>) {
    let encoded = token.strip_prefix(PREFIX).expect("the prefix");
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).expect("unpadded")).unwrap();
    assert!(!url.contains('+'), "a plus would be read as a blank: {url}");
    let (place, _) = url.split_once('?').unwrap();
    let pairs: Vec<_> = url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    let parameters: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(pairs.len(), parameters.len(), "a parameter twice: {url}");
    (place.to_owned(), parameters)
}

#[test]
fn equals_what_the_aws_cli_mints() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let plain: Vec<_> = cases.iter().filter(|case| case["stsEndpoint"].is_null()).collect();
    assert!(plain.len() >= 9, "the recording is whole");
    for case in plain {
        let (region, cluster) =
            (case["region"].as_str().unwrap(), case["cluster"].as_str().unwrap());
        let ours = mint(&credentials(case), region, cluster, time(&golden["at"])).unwrap();
        let theirs = case["status"]["token"].as_str().unwrap();
        assert_eq!(taken_apart(ours.expose()), taken_apart(theirs), "{region} {cluster}");
        assert_eq!(ours.expires(), time(&case["status"]["expirationTimestamp"]));
    }
}

#[test]
fn what_the_cli_signs_for_an_endpoint_variable_is_never_ours() {
    let golden = golden();
    let moved = golden["cases"].as_array().unwrap();
    let mut seen = 0;
    for case in moved.iter().filter(|case| !case["stsEndpoint"].is_null()) {
        let (region, cluster) =
            (case["region"].as_str().unwrap(), case["cluster"].as_str().unwrap());
        let ours = mint(&credentials(case), region, cluster, time(&golden["at"])).unwrap();
        let (place, _) = taken_apart(case["status"]["token"].as_str().unwrap());
        assert_ne!(taken_apart(ours.expose()).0, place);
        seen += 1;
    }
    assert!(seen > 0, "the recording holds tokens for another host");
}

#[test]
fn a_token_does_not_show_itself() {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let token = mint(&credentials, "us-east-1", "prod", SystemTime::UNIX_EPOCH).unwrap();
    assert!(!format!("{token:?}").contains("aHR0"));
    assert_eq!(token.expires(), SystemTime::UNIX_EPOCH + VALID_FOR);
}

#[test]
fn a_cluster_name_that_is_no_header_is_refused() {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    assert!(mint(&credentials, "us-east-1", "a\nb", SystemTime::UNIX_EPOCH).is_err());
}
