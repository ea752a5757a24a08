//! The virtual machine's process: QEMU in software emulation, its serial ports as files, its network as QEMU's own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::parts::Parts;

/// Where IMDS is, on EC2 and here.
const IMDS: &str = "169.254.169.254:80";

/// What a machine is plugged into.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Its own address, in a network of 16 bits whose last address but one is the host.
    pub address: Ipv4Addr,
    /// Where its IMDS is served on the host: `127.0.1.2:80`.
    pub imds: String,
    /// The first serial port's file.
    pub console: PathBuf,
    /// The second's.
    pub telling: PathBuf,
}

/// A machine that runs; dropping it cuts its power.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    telling: PathBuf,
}

/// This host's 127.0.0.1 as the guest sees it, in the guest's network of 16 bits.
#[must_use]
pub fn host_of(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, ..] = address.octets();
    Ipv4Addr::new(a, b, 255, 254)
}

impl Guest {
    /// Powers it on.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(
        parts: &Parts,
        disk: &Path,
        initrd: &Path,
        wiring: &Wiring,
    ) -> anyhow::Result<Self> {
        let qemu = &parts.qemu;
        let share = |folder: &str| qemu.join("usr").join(folder);
        let [a, b, ..] = wiring.address.octets();
        let host = host_of(wiring.address);
        let network = format!("user,id=own,net={a}.{b}.0.0/16,host={host},dns={a}.{b}.255.253");
        // QEMU starts one of these for each connection.
        let relay =
            format!("{} nc {}", share("bin/busybox").display(), wiring.imds.replace(':', " "));
        // A second card, for an address that routers do not know: only the relay is there.
        let link = format!(
            "user,id=link,net=169.254.169.0/24,host=169.254.169.1,dns=169.254.169.3,restrict=on,\
             guestfwd=tcp:{IMDS}-cmd:{relay}"
        );
        let drive = format!("file={},if=none,id=disk,format=raw,cache=unsafe", disk.display());
        let port =
            |id: &str, path: &Path| format!("file,id={id},path={},append=on", path.display());
        // It ends with us, however we end.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(share("bin/qemu-system-x86_64"))
            .env("LD_LIBRARY_PATH", share("lib/x86_64-linux-gnu"))
            .args(["-L".as_ref(), share("share/qemu").as_os_str()])
            .args(["-L".as_ref(), share("share/seabios").as_os_str()])
            // /dev/kvm may be there and not work: never the host's processor.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-kernel".as_ref(), parts.kernel()?.as_os_str()])
            .args(["-initrd".as_ref(), initrd.as_os_str()])
            .args(["-append", "console=ttyS0 net.ifnames=0 quiet systemd.show_status=0"])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
            .args(["-chardev", &port("console", &wiring.console), "-serial", "chardev:console"])
            .args(["-chardev", &port("telling", &wiring.telling), "-serial", "chardev:telling"])
            .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=own,romfile="])
            .args(["-netdev", &link, "-device", "virtio-net-pci,netdev=link,romfile="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        fs::write(&wiring.telling, "").context("could not make the second serial port")?;
        let child = command.spawn().context("could not start QEMU")?;
        Ok(Self { child, telling: wiring.telling.clone() })
    }

    /// What it has told lately: the lines of its last whole report.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let text = fs::read(&self.telling).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let mut reports: Vec<&str> = text.split("END\n").collect();
        reports.pop();
        reports.last().map(|last| last.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Cuts its power.
    pub async fn cut(mut self) {
        if let Err(error) = self.child.kill().await {
            drop(error);
        }
    }
}
