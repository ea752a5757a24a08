//! A metadata service for one node: IMDSv2 as far as identify needs it, and no role.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

const IDENTITY: &str = r#"{"instanceId":"i-0abc","instanceType":"m6i.large","region":"us-east-1",
    "availabilityZone":"us-east-1a","accountId":"123456789012"}"#;

/// Serves `user_data` until the test ends; gives the URL. Answers carry no date, so they say nothing
/// of anybody's clock.
pub(crate) fn serve(user_data: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" => ("200 OK", "token"),
                "/latest/user-data" => ("200 OK", user_data.as_str()),
                "/latest/dynamic/instance-identity/document" => ("200 OK", IDENTITY),
                _ => ("404 Not Found", ""),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\
                 X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n\r\n{body}",
                body.len()
            );
            // Who has gone away needs no answer.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}
