//! Who can log in to a machine, as on AL2023: `ec2-user`, with the key that EC2 was given for the instance, over ssh.

use std::fs;
use std::path::Path;

use super::MachineError;
use super::image::{file, make, make_open};
use super::units::Unit;
use crate::directory::DirectoryError;

/// The user that cloud-init gives the instance's key to.
pub(super) const USER: &str = "ec2-user";

/// What the users are in the four files of accounts.
const ACCOUNTS: [(&str, &str); 4] = [
    (
        "passwd",
        "ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash\n\
         sshd:x:74:74:Privilege-separated SSH:/run/sshd:/usr/sbin/nologin\n",
    ),
    ("group", "ec2-user:x:1000:\nsshd:x:74:\n"),
    ("shadow", "ec2-user:*:19000:0:99999:7:::\nsshd:*:19000::::::\n"),
    ("gshadow", "ec2-user:!::\nsshd:!::\n"),
];

const SSHD_CONFIG: &str = "# Keys alone, as on AL2023; without PAM, whose modules want rights that a machine in a namespace has not.\n\
    HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
    UsePAM no\nUseDNS no\nAuthorizedKeysFile .ssh/authorized_keys\nSubsystem sftp internal-sftp\n";

/// The daemon, where the lab's set-up could get it. Its sessions end with it: no PAM puts them into a group of their own.
pub(super) static SSHD: Unit = Unit {
    name: "sshd.service",
    enabled: true,
    text: "[Unit]\nDescription=OpenSSH server daemon\nAfter=network.target\n\
        ConditionPathExists=/usr/sbin/sshd\n\
        [Service]\nType=simple\nRuntimeDirectory=sshd\nRuntimeDirectoryMode=0755\n\
        ExecStartPre=/bin/sh -c '[ -s /etc/ssh/ssh_host_ed25519_key ] || exec /usr/bin/ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key'\n\
        ExecStart=/usr/sbin/sshd -D -e\nTimeoutStopSec=2\nRestart=on-failure\nRestartSec=1\n\
        [Install]\nWantedBy=multi-user.target\n",
};

/// Writes the users, what they may do, and the daemon's configuration.
pub(super) fn write(machine: &Path) -> Result<(), MachineError> {
    let etc = machine.join("etc");
    for (name, lines) in ACCOUNTS {
        let path = etc.join(name);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let mode = if name.ends_with("shadow") { 0o640 } else { 0o644 };
        file(&path, &with(&before, lines), mode)?;
    }
    file(&etc.join("ssh/sshd_config"), SSHD_CONFIG, 0o600)?;
    make_open(&etc.join("sudoers.d"), 0o750)?;
    file(&etc.join("sudoers"), "root ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440)?;
    let rule = format!("{USER} ALL=(ALL) NOPASSWD:ALL\n");
    file(&etc.join("sudoers.d/90-cloud-init-users"), &rule, 0o440)?;
    let pam = "auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
    file(&etc.join("pam.d/sudo"), pam, 0o644)?;
    let home = machine.join("home").join(USER);
    make(&home)?;
    make_open(&home, 0o700)?;
    std::os::unix::fs::chown(&home, Some(1000), Some(1000))
        .map_err(DirectoryError::of("give away", &home))?;
    Ok(())
}

/// A file of accounts with these added; accounts of the same name or number go.
fn with(before: &str, lines: &str) -> String {
    let names: Vec<&str> = lines.lines().filter_map(|line| line.split(':').next()).collect();
    let numbers: Vec<&str> = lines.lines().filter_map(number).collect();
    let mut text: String = before
        .lines()
        .filter(|line| !names.contains(&line.split(':').next().unwrap_or_default()))
        .filter(|line| !number(line).is_some_and(|number| numbers.contains(&number)))
        .map(|line| format!("{line}\n"))
        .collect();
    text.push_str(lines);
    text
}

/// The number of an account or a group, in the files that have one.
fn number(line: &str) -> Option<&str> {
    let mut fields = line.split(':').skip(1);
    fields.next().filter(|password| *password == "x")?;
    fields.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_there_once_and_no_other_has_its_number() {
        let before = "root:x:0:0::/root:/bin/sh\nsomebody:x:1000:1000::/home/somebody:/bin/sh\n\
                      sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n";
        let lines = ACCOUNTS[0].1;
        let after = with(before, lines);
        assert_eq!(after, format!("root:x:0:0::/root:/bin/sh\n{lines}"));
        assert_eq!(with(&after, lines), after);
        let shadow = with("root:*:19000::::::\nbin:*:19000::::::\n", ACCOUNTS[2].1);
        assert_eq!(shadow.lines().count(), 4, "{shadow}");
    }
}
