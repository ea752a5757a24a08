//! Watches over the wire.

use super::*;

checks! {
    a_watch_follows_from_a_revision_and_ends_in_time,
}

/// Reads a watch's events one by one.
struct Events(reqwest::Response, Vec<u8>);

impl Events {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.1.extend_from_slice(&self.0.chunk().await.unwrap()?);
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) {
        let event = self.next().await.unwrap();
        let got = (event["type"].as_str(), event["object"]["metadata"]["name"].as_str());
        assert_eq!(got, (Some(kind), Some(name)));
    }
}

async fn watch(client: &Client, query: &str) -> Events {
    let path = format!("/api/v1/namespaces/default/configmaps?watch=true&{query}");
    Events(client.request(Method::GET, &path).send().await.unwrap(), Vec::new())
}

async fn a_watch_follows_from_a_revision_and_ends_in_time(served: &Served) {
    let operator = served.user("OPERATOR");
    let maps = "/api/v1/namespaces/default/configmaps";
    operator.post(maps, json!({"metadata": {"name": "m"}})).await;
    let mut all = watch(&operator, "fieldSelector=metadata.name%3Dm").await;
    all.expect("ADDED", "m").await;
    let (_, list) = operator.get(maps).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    operator.patch(&format!("{maps}/m"), MERGE, json!({"data": {"a": "1"}})).await;
    operator.delete(&format!("{maps}/m")).await;
    all.expect("MODIFIED", "m").await;
    all.expect("DELETED", "m").await;

    let query =
        format!("fieldSelector=metadata.name%3Dm&resourceVersion={revision}&timeoutSeconds=1");
    let mut later = watch(&operator, &query).await;
    later.expect("MODIFIED", "m").await;
    later.expect("DELETED", "m").await;
    assert_eq!(later.next().await, None, "it ends when its time is up");
}
