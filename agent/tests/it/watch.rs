//! The watch as a unit runs it: one process, scraped over HTTP while its driver breaks and heals.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nvml_sim::fault::Fault;

use crate::gpu::{Node, h100s};

pub(crate) struct Watch {
    child: Child,
    address: SocketAddr,
}

impl Watch {
    pub(crate) fn start(node: &Node) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_rollcall-agent"))
            .args(["watch", "--listen", &address.to_string(), "--root"])
            .arg(node.path())
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    pub(crate) fn scrape(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The first scrape that is as wanted, and how long it took.
    pub(crate) fn until(&self, within: u64, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = self.scrape().unwrap_or_default();
            if wanted(&text) {
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(within), "not in {within} s: {text}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Tells it to stop; how long it took.
    pub(crate) fn stop(mut self) -> Duration {
        let start = Instant::now();
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        start.elapsed()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It has ended where the test came through.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn up(text: &str) -> (usize, usize) {
    let gpus = text.lines().filter(|line| line.starts_with("rollcall_gpu_up{"));
    let (up, down): (Vec<_>, Vec<_>) = gpus.partition(|line| line.ends_with(" 1"));
    (up.len(), down.len())
}

#[test]
fn a_lost_gpu_hides_nobody_and_returns() {
    let mut state = h100s();
    let node = Node::new(&state);
    let watch = Watch::start(&node);
    let text = watch.until(15, |text| up(text) == (8, 0));
    for family in ["DCGM_FI_DEV_GPU_TEMP{", "DCGM_FI_DEV_POWER_USAGE{", "DCGM_FI_DEV_FB_FREE{"] {
        assert_eq!(text.lines().filter(|line| line.starts_with(family)).count(), 8, "{family}");
    }
    assert!(text.contains("DCGM_FI_DRIVER_VERSION=\"580.95.05\""), "{text}");
    // GPM needs two samples.
    watch.until(15, |text| text.contains("DCGM_FI_PROF_GR_ENGINE_ACTIVE{"));

    Fault::GpuLost(3).apply(&mut state);
    node.set(&state);
    let text = watch.until(15, |text| up(text) == (7, 1));
    let temperatures = text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{"));
    assert_eq!(temperatures.count(), 8, "the lost one's last values stay");
    node.set(&h100s());
    watch.until(15, |text| up(text) == (8, 0));
    assert!(watch.stop() < Duration::from_secs(5));
}

#[test]
fn a_hang_is_survived_and_does_not_hold_up_a_stop() {
    let node = Node::new(&h100s());
    let watch = Watch::start(&node);
    watch.until(15, |text| text.contains("rollcall_driver_up 1"));
    let mut state = h100s();
    Fault::DriverHang.apply(&mut state);
    node.set(&state);
    let text = watch.until(30, |text| text.contains("rollcall_driver_up 0"));
    assert_eq!(up(&text), (0, 8));
    assert_eq!(text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_SM_CLOCK{")).count(), 8);
    assert!(watch.stop() < Duration::from_secs(5));
}

#[test]
fn a_driver_that_comes_later_is_noticed() {
    let mut state = h100s();
    Fault::DriverNotLoaded.apply(&mut state);
    let node = Node::new(&state);
    let watch = Watch::start(&node);
    watch.until(15, |text| text.contains("rollcall_driver_up 0"));
    node.set(&h100s());
    watch.until(5, |text| up(text) == (8, 0));
}
