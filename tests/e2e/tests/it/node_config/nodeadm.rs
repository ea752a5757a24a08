//! The real nodeadm, or its stand-in, run on a case; and the metadata service that they read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A program that speaks nodeadm's command line.
pub(super) struct Nodeadm {
    program: PathBuf,
    first: Option<&'static str>,
}

impl Nodeadm {
    /// The real one, where the lab's parts are built.
    pub(super) fn real() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/parts/setup.sh");
        let place = Command::new(script).arg("--where").output().unwrap();
        let place = PathBuf::from(String::from_utf8(place.stdout).unwrap().trim());
        let cache = place.parent()?;
        // Its own folder, because parts.json comes only once every part is there.
        let folder = std::fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
        let parts = std::fs::read_to_string(place.join("parts.json")).unwrap_or_default();
        let parts: Value = serde_json::from_str(&parts).unwrap_or_default();
        let named = parts["nodeadm"]["path"].as_str().filter(|path| !path.is_empty());
        let program = named.map(PathBuf::from).or_else(|| {
            folder.map(|folder| folder.join("nodeadm")).find(|program| program.is_file())
        })?;
        program.is_file().then_some(Self { program, first: None })
    }

    /// The process nodes' stand-in.
    pub(super) fn stand_in() -> Self {
        let program = e2e::programs::Programs::of_this_build().unwrap().bin.join("lab");
        Self { program, first: Some("nodeadm") }
    }

    /// Runs `config dump` or `config check` on the user data and the node's drop-ins: standard
    /// output, or the error.
    pub(super) fn run(&self, verb: &str, root: &Path, imds: &Imds) -> Result<String, String> {
        let directory = match self.first {
            Some(_) => "file:///etc/eks/nodeadm.d/".to_owned(),
            None => format!("file://{}/etc/eks/nodeadm.d/", root.display()),
        };
        let output = Command::new(&self.program)
            .args(self.first)
            .args(["config", verb, "-c", "imds://user-data", "-c", &directory])
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url())
            .env("ROLLCALL_NODE_ROOT", root)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// A metadata service with nothing but user data.
pub(super) struct Imds {
    port: u16,
    user_data: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Imds {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let user_data = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&user_data);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let user_data: Option<Vec<u8>> = shared.lock().unwrap().clone();
                // A client that hangs up early is the client's affair.
                let _ = answer(stream, user_data.as_deref());
            }
        });
        Self { port, user_data }
    }

    pub(super) fn serve(&self, user_data: Option<Vec<u8>>) {
        *self.user_data.lock().unwrap() = user_data;
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn answer(mut stream: TcpStream, user_data: Option<&[u8]>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let (status, body) = match (head.starts_with(b"PUT "), user_data) {
        (true, _) => ("200 OK", &b"T"[..]),
        (false, Some(bytes)) => ("200 OK", bytes),
        (false, None) => ("404 Not Found", &b""[..]),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nX-aws-ec2-metadata-token-ttl-seconds: 300\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)
}
