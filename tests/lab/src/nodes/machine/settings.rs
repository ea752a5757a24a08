//! What a machine needs beyond AL2023: one file, `beyond_al2023.conf`, that `lab status` shows and that
//! holds the text of several files of the machine.

use std::path::Path;

use super::network;
use crate::aws::Instance;

const TEMPLATE: &str = include_str!("beyond_al2023.conf");
/// What stands before each file's name.
const FILE: &str = "=== ";

/// The file, with what is the same on all machines of this host filled in.
pub(super) fn shown() -> String {
    let endpoints: String = network::SERVICES
        .iter()
        .map(|(service, _, address)| format!(" AWS_ENDPOINT_URL_{service}=http://{address}"))
        .collect();
    let sts = format!("{} {}", network::STS.1, network::STS.0);
    TEMPLATE
        .replace("${ENDPOINTS}", &endpoints)
        .replace("${STS}", &sts)
        .replace("${OPEN_FILES}", &open_files())
}

/// The files of one machine: path below the root, without its first slash, and text.
pub(super) fn files(instance: &Instance) -> Vec<(String, String)> {
    let filled = shown()
        .replace("${ADDRESS}", &instance.private_ip)
        .replace("${NAME}", &instance.private_dns_name);
    split(&filled)
}

/// Lines that begin with `#` are about the file below them. Pure.
fn split(text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(path) = line.strip_prefix(FILE) {
            files.push((path.trim_start_matches('/').to_owned(), String::new()));
        } else if let Some((_, text)) = files.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    for (_, text) in &mut files {
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    files
}

/// How many files a process of this host may have open at most.
fn open_files() -> String {
    let limits = std::fs::read_to_string(Path::new("/proc/self/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    hard.filter(|limit| limit.parse::<u32>().is_ok()).unwrap_or("1024").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_but_sts_has_an_endpoint_and_no_variable_catches_them_all() {
        let text = shown();
        let line = text.lines().find(|line| line.starts_with("DefaultEnvironment=")).unwrap();
        let variables: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert_eq!(variables.len(), network::SERVICES.len());
        for (variable, (service, _, address)) in variables.iter().zip(network::SERVICES) {
            assert_eq!(*variable, format!("AWS_ENDPOINT_URL_{service}=http://{address}"));
        }
        assert!(!text.contains("AWS_ENDPOINT_URL="), "{text}");
        assert!(!text.contains("AWS_ENDPOINT_URL_STS"), "{text}");
        assert!(text.contains(&format!("{} sts.us-east-1.amazonaws.com", network::STS.1)));
    }

    #[test]
    fn the_one_file_holds_the_files_of_a_machine() {
        let instance = Instance {
            private_ip: "10.0.0.7".into(),
            private_dns_name: "ip-10-0-0-7.ec2.internal".into(),
            ..Instance::default()
        };
        let files = files(&instance);
        let text = |path: &str| &files.iter().find(|(name, _)| name == path).unwrap().1;
        let hosts = text("etc/hosts");
        assert!(hosts.starts_with("127.0.0.1 localhost\n10.0.0.7 ip-10-0-0-7."), "{hosts}");
        let config: serde_yaml::Value =
            serde_yaml::from_str(text("etc/eks/nodeadm.d/90-rollcall-lab.yaml")).unwrap();
        assert_eq!(config["spec"]["kubelet"]["config"]["cgroupDriver"], "cgroupfs");
        assert_eq!(files.len(), 5);
        for (path, text) in &files {
            assert!(path.starts_with("etc/") && !text.contains("${"), "{path}: {text}");
        }
    }
}
