//! What the join tells PID 1 before its first verdict: by silence PID 1 knows that it hangs.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The join's unit, as it is installed.
const UNIT: &str = include_str!("../../../systemd/rollcall-join.service");

fn seconds(key: &str) -> u64 {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().unwrap().parse().unwrap()
}

struct Join(Child);

impl Drop for Join {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_join_that_lives_keeps_its_start_alive() {
    let node = tempfile::tempdir().unwrap();
    let path = node.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _join = Join(
        Command::new(env!("CARGO_BIN_EXE_rollcall-agent"))
            .args(["join", "--root"])
            .arg(node.path())
            .env("NOTIFY_SOCKET", &path)
            // Nobody answers: identify looks for a minute.
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let word = format!("EXTEND_TIMEOUT_USEC={}", seconds("TimeoutStartSec") * 1_000_000);
    let (start, mut heard) = (Instant::now(), 0);
    while heard < 3 {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        assert!(!text.contains("READY=1"), "nothing is proven yet");
        heard += usize::from(text.lines().any(|line| line == word));
        assert!(start.elapsed() < Duration::from_secs(60), "heard {heard} times of it");
    }
}

/// The fifth failed start falls within the limit's interval, or the fallback never speaks.
#[test]
fn five_hangs_fall_within_the_start_limit() {
    assert!(UNIT.contains("\nTimeoutStartFailureMode=kill\n"), "a stop would take longer");
    let life = seconds("TimeoutStartSec") + seconds("RestartSec");
    let burst = seconds("StartLimitBurst");
    assert!(life * burst < seconds("StartLimitIntervalSec"), "{burst} lives of {life} s");
}
