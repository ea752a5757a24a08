//! Secrets that are planted where nodes have them turn up in nothing that the agent leaves or sends:
//! log, console, journal, report, spool, evidence, Parameter Store, tag.

use std::io::{Read as _, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

use super::*;

const TOKEN: &str = "Y2FuYXJ5LXRva2VuLWNhbmFyeS10b2tlbi1jYW5hcnk";
const SECRET_KEY: &str = "wCanaryFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY12";
const SESSION: &str = "IQoJb3JpZ2luX2VjCanary0EXAMPLEtoken0EXAMPLEtoken0EXAMPLE9";
const PROXY_PASSWORD: &str = "canary-proxy-word";
const USER_DATA: &str = "canary user data";

/// A journal as careless scripts and programs write it.
fn journalctl() -> String {
    format!(
        "#!/bin/sh\ncat <<'LOG'\n\
         cloud-init[812]: + psql -W '{USER_DATA}' -h db.corp\n\
         kubelet: could not use token k8s-aws-v1.{TOKEN} against the API server\n\
         env: AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_SESSION_TOKEN={SESSION}\n\
         aws-sdk: signed with {SECRET_KEY} and {SESSION}\n\
         curl: (7) Failed to connect through http://joe:{PROXY_PASSWORD}@proxy.corp:3128/\n\
         {{\"level\":\"fatal\",\"error\":\"proxy http://joe:{PROXY_PASSWORD}@proxy.corp:3128 says no to \
         k8s-aws-v1.{TOKEN} of {USER_DATA}\"}}\nLOG\n"
    )
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn careless_world() -> World {
    let mut world = World::new(0).await;
    let deadline = Deadline::within(Duration::from_secs(10));
    let given = world.node().imds.get("user-data", deadline).await.unwrap();
    let script = format!(
        "--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\nexport DB_PASSWORD='{USER_DATA}'\n--B--"
    );
    let given = String::from_utf8(given).unwrap().replace("--B--", &script);
    world.imds = Server::start(move |request| match request.split(' ').nth(1) {
        Some("/latest/user-data") => Answer::ok(given.clone()),
        Some("/latest/meta-data/iam/security-credentials/node") => Answer::ok(format!(
            r#"{{"Code":"Success","AccessKeyId":"ASIACANARYCANARY1234","SecretAccessKey":"{SECRET_KEY}",
                "Token":"{SESSION}","Expiration":"2099-01-01T00:00:00Z"}}"#
        )),
        _ => imds_answers(request),
    })
    .await;
    let root = world.root();
    std::fs::write(root.path("/usr/bin/journalctl"), journalctl()).unwrap();
    std::fs::create_dir_all(root.path("/run/eks/nodeadm")).unwrap();
    let cache =
        format!(r#"{{"spec":{{"HTTPS_PROXY":"http://joe:{PROXY_PASSWORD}@proxy.corp:3128"}}}}"#);
    std::fs::write(root.path("/run/eks/nodeadm/config.json"), cache).unwrap();
    std::fs::write(root.path("/config-fails"), "").unwrap();
    world
}

/// Everything that the agent has written below the node's root, unpacked.
fn written(directory: PathBuf, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let mut text = String::new();
            if path.extension().is_some_and(|extension| extension == "gz") {
                flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
            } else {
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            found.push((path, text));
        }
    }
}

#[tokio::test]
async fn planted_secrets_turn_up_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,agent=trace"))
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = careless_world().await;
    let (node, root) = (world.node(), world.root());
    let recorder = Recorder::new(root.clone(), &node.boot);
    let mut walk = Walk::new(&node, &recorder);
    assert!(Box::pin(walk.once()).await.is_err());
    Box::pin(walk.keep_evidence()).await;
    let put =
        |r: &String| r.contains("AmazonSSM.PutParameter") && r.contains("NodeadmConfigFailed");
    until(|| world.aws.requests().iter().any(put)).await;
    recorder.flush(Duration::from_secs(10));

    let mut found = Vec::new();
    for place in ["/run/rollcall", "/var/lib/rollcall", "/dev"] {
        written(root.path(place), &mut found);
    }
    let has = |name: &str| found.iter().any(|(path, _)| path.to_string_lossy().contains(name));
    for expected in ["report.json", "journal.json", "spool", ".txt.gz", "console"] {
        assert!(has(expected), "no {expected}");
    }
    let evidence =
        &found.iter().find(|(path, _)| path.to_string_lossy().ends_with(".gz")).unwrap().1;
    assert!(evidence.contains("through http://[redacted]@proxy.corp:3128/"), "{evidence}");
    let said = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    found.push(("log".into(), String::from_utf8_lossy(&said).into_owned()));
    for request in world.aws.requests() {
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        found.push(("request".into(), body));
    }
    for (path, text) in found {
        for canary in [TOKEN, SECRET_KEY, SESSION, PROXY_PASSWORD, USER_DATA] {
            assert!(!text.contains(canary), "`{canary}` in {}: {text}", path.display());
        }
    }
}
