//! The host itself: is the image one that nodeadm can work with, and is there room to write?

use std::sync::{Arc, Mutex, PoisonError};

use contract::{Finding, Reason};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::finding;
use crate::host::program::{self, Program};
use crate::host::{Deadline, Root, files, space};

/// What the image must have.
const NODEADM: &str = "/usr/bin/nodeadm";
const KUBELET: &str = "/usr/bin/kubelet";
/// Where nodeadm looks for the image credential provider unless its environment says otherwise.
pub const ECR_PROVIDER: &str = "/etc/eks/image-credential-provider/ecr-credential-provider";
/// What EKS's images say of their kubelet; nodeadm reads it too.
const KUBELET_VERSION: &str = "/etc/eks/kubelet-version.txt";
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Where nodeadm, containerd and kubelet write.
const WRITTEN: [&str; 5] =
    ["/etc", "/run", "/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods"];

/// With less room than this nothing of theirs is certain to be written: the configuration is some
/// 100 KB, and a journal file of systemd 8 MB.
const BYTES_MIN: u64 = 8 * 1024 * 1024;
const FILES_MIN: u64 = 64;

/// How many minor versions a kubelet may be behind its API server: the Kubernetes version skew
/// policy, since 1.28.
const MINORS_BEHIND: u32 = 3;

/// What the host shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What the image calls itself; none when it does not say.
    pub image: Option<Image>,
    /// `/usr/bin/nodeadm`.
    pub nodeadm: Program,
    /// `/usr/bin/kubelet`.
    pub kubelet: Program,
    /// The image credential provider.
    pub ecr_provider: Program,
    /// containerd, wherever it is.
    pub containerd: Program,
    /// runc, wherever it is.
    pub runc: Program,
    /// Places with next to no room, each with what is left.
    pub full: Vec<String>,
    /// kubelet's version, `v1.34.2-eks-113cf36`.
    pub kubelet_version: Option<String>,
}

/// What an image calls itself in os-release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `amzn`, `ubuntu`, `bottlerocket`.
    pub id: String,
    /// `2023`.
    pub version: String,
    /// `Amazon Linux 2023`.
    pub name: String,
}

impl Image {
    fn is_al2023(&self) -> bool {
        self.id == "amzn" && self.version.split('.').next() == Some("2023")
    }

    /// Reads os-release(5).
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
            Some(line.trim_matches(['"', '\'']).to_owned())
        };
        let id = value("ID=")?;
        let version = value("VERSION_ID=").unwrap_or_default();
        let name = value("PRETTY_NAME=").unwrap_or_else(|| format!("{id} {version}"));
        Some(Self { id, version, name })
    }
}

/// Looks at the disk from a thread of its own: a file system that hangs must not hold the agent, which
/// says so. What hangs is not looked at again before the thread is back.
#[derive(Debug, Default)]
pub struct Looker {
    thread: tokio::sync::Mutex<Option<JoinHandle<Host>>>,
    at: Arc<Mutex<&'static str>>,
}

impl Looker {
    /// Looks as [`look`] does.
    ///
    /// # Errors
    /// Names the place that has not answered by the deadline.
    pub async fn look(
        &self,
        root: &Root,
        ecr_provider: String,
        deadline: Deadline,
    ) -> Result<Host, &'static str> {
        let mut thread = self.thread.lock().await;
        let looking = thread.get_or_insert_with(|| {
            let (root, at) = (root.clone(), Arc::clone(&self.at));
            let note = move |path| *at.lock().unwrap_or_else(PoisonError::into_inner) = path;
            tokio::task::spawn_blocking(move || look(&root, &ecr_provider, &note))
        });
        let ended = timeout_at(deadline.instant(), looking).await;
        let ended = ended.map_err(|_| *self.at.lock().unwrap_or_else(PoisonError::into_inner))?;
        *thread = None;
        match ended {
            Ok(host) => Ok(host),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Looks at the disk; `ecr_provider` is where nodeadm looks for the image credential provider, and
/// `note` is told each place before it is asked.
#[must_use]
pub fn look(root: &Root, ecr_provider: &str, note: &dyn Fn(&'static str)) -> Host {
    note("/");
    let image = OS_RELEASE.iter().find_map(|path| files::read_text(&root.path(path)).ok());
    let version = files::read_text(&root.path(KUBELET_VERSION)).ok();
    Host {
        image: image.and_then(|text| Image::parse(&text)),
        nodeadm: program::look(&root.path(NODEADM)),
        kubelet: program::look(&root.path(KUBELET)),
        ecr_provider: program::look(&root.path(ecr_provider)),
        containerd: program::search(root, "containerd"),
        runc: program::search(root, "runc"),
        full: WRITTEN
            .into_iter()
            .inspect(|path| note(path))
            .filter_map(|path| full(root, path))
            .collect(),
        kubelet_version: version.map(|text| text.trim().to_owned()).filter(|v| !v.is_empty()),
    }
}

fn full(root: &Root, path: &str) -> Option<String> {
    let space = space::at(&root.path(path))?;
    if space.bytes < BYTES_MIN {
        Some(format!("`{path}` has {} KiB left", space.bytes / 1024))
    } else {
        let files = space.files.filter(|files| *files < FILES_MIN)?;
        Some(format!("`{path}` has room for {files} more files"))
    }
}

/// What is wrong with the host. `server` is the version of the API server, where it has said it.
#[must_use]
pub fn findings(host: &Host, server: Option<&str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = programs(host).into_iter().flatten().collect();
    if let (Program::Missing, Some(image)) = (&host.nodeadm, &host.image)
        && !image.is_al2023()
    {
        let what = format!("the image is `{}`, which has no nodeadm", image.name);
        findings.push(finding(Reason::WrongImage, what));
    }
    if let Some((first, others)) = host.full.split_first() {
        let found = finding(Reason::DiskFull, first.clone());
        findings.push(others.iter().fold(found, |found, other| found.with_evidence(other.clone())));
    }
    findings.extend(skew(host.kubelet_version.as_deref(), server));
    findings
}

fn programs(host: &Host) -> [Option<Finding>; 4] {
    let judge = |path: &str, program: &Program, missing: Reason, unusable: Reason| match program {
        Program::Usable => None,
        Program::Missing => Some(finding(missing, format!("`{path}` does not exist"))),
        Program::Unusable(why) => {
            Some(finding(unusable, format!("`{path}` cannot be executed: {why}")))
        }
    };
    let one = |path: &str, program: &Program, reason: Reason| judge(path, program, reason, reason);
    let runtime = |name, program| one(name, program, Reason::ContainerRuntimeMissing);
    [
        judge(NODEADM, &host.nodeadm, Reason::NodeadmMissing, Reason::NodeadmNotExecutable),
        one(KUBELET, &host.kubelet, Reason::KubeletMissing),
        one(ECR_PROVIDER, &host.ecr_provider, Reason::KubeletCredentialPluginMissing),
        runtime("containerd", &host.containerd).or_else(|| runtime("runc", &host.runc)),
    ]
}

fn skew(kubelet: Option<&str>, server: Option<&str>) -> Option<Finding> {
    let ((major, ours), (same, theirs)) = (minor(kubelet?)?, minor(server?)?);
    let fits = major == same && ours <= theirs && ours + MINORS_BEHIND >= theirs;
    (!fits).then(|| {
        let what = format!(
            "kubelet is {}, the API server {}",
            kubelet.unwrap_or_default(),
            server.unwrap_or_default()
        );
        finding(Reason::KubeletVersionSkew, what)
    })
}

/// Major and minor of `v1.34.2-eks-113cf36`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().trim_start_matches('v').split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    pub(in crate::phases::preflight) fn host() -> Host {
        Host {
            image: Image::parse("ID=\"amzn\"\nVERSION_ID=\"2023\"\n"),
            nodeadm: Program::Usable,
            kubelet: Program::Usable,
            ecr_provider: Program::Usable,
            containerd: Program::Usable,
            runc: Program::Usable,
            full: vec![],
            kubelet_version: Some("v1.34.2-eks-113cf36".into()),
        }
    }

    fn names(host: &Host, server: Option<&str>) -> Vec<String> {
        let ranked = contract::verdict::rank(findings(host, server));
        ranked.iter().map(|finding| finding.reason.to_string()).collect()
    }

    #[test]
    fn each_lack_has_its_name() {
        assert_eq!(names(&host(), Some("v1.34.4")), Vec::<String>::new());
        let bad = || Program::Unusable("its mode is 0644".into());
        for (host, expected) in [
            (Host { nodeadm: Program::Missing, ..host() }, "NodeadmMissing"),
            (Host { nodeadm: bad(), ..host() }, "NodeadmNotExecutable"),
            (Host { kubelet: Program::Missing, ..host() }, "KubeletMissing"),
            (Host { kubelet: bad(), ..host() }, "KubeletMissing"),
            (Host { ecr_provider: Program::Missing, ..host() }, "KubeletCredentialPluginMissing"),
            (Host { containerd: Program::Missing, ..host() }, "ContainerRuntimeMissing"),
            (Host { runc: bad(), ..host() }, "ContainerRuntimeMissing"),
            (Host { full: vec!["`/run` has 0 KiB left".into()], ..host() }, "DiskFull"),
        ] {
            assert_eq!(names(&host, None), [expected]);
        }
    }

    #[test]
    fn another_image_explains_what_it_lacks() {
        let image = |text: &str| Host {
            image: Image::parse(text),
            nodeadm: Program::Missing,
            kubelet: Program::Missing,
            ..host()
        };
        for (text, expected) in [
            ("ID=amzn\nVERSION_ID=\"2\"\nPRETTY_NAME=\"Amazon Linux 2\"\n", &["WrongImage"][..]),
            ("NAME=x\nID=ubuntu\nVERSION_ID=\"24.04\"\n", &["WrongImage"]),
            ("ID=bottlerocket\nVERSION_ID=1.50.0\n", &["WrongImage"]),
            ("ID=amzn\nVERSION_ID=\"2023\"\n", &["NodeadmMissing", "KubeletMissing"]),
            ("nonsense", &["NodeadmMissing", "KubeletMissing"]),
        ] {
            assert_eq!(names(&image(text), None), expected, "{text}");
        }
        let other_with_nodeadm = Host { image: Image::parse("ID=rhel\nVERSION_ID=9"), ..host() };
        assert!(names(&other_with_nodeadm, None).is_empty(), "it would join");
    }

    #[test]
    fn kubelet_follows_its_api_server() {
        for (kubelet, server, skewed) in [
            ("v1.34.2-eks-1", Some("v1.34.4-eks-2"), false),
            ("v1.31.0", Some("v1.34.4"), false),
            ("v1.30.0", Some("v1.34.4"), true),
            ("v1.35.0", Some("v1.34.4"), true),
            ("1.33+", Some("1.34"), false),
            ("v2.34.0", Some("v1.34.0"), true),
            ("v1.35.0", None, false),
            ("newest", Some("v1.34.4"), false),
        ] {
            let host = Host { kubelet_version: Some(kubelet.into()), ..host() };
            let expected: &[&str] = if skewed { &["KubeletVersionSkew"] } else { &[] };
            assert_eq!(names(&host, server), expected, "{kubelet} at {server:?}");
        }
    }

    #[test]
    fn looks_below_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let seen = look(&root, ECR_PROVIDER, &|_| ());
        assert_eq!((&seen.image, &seen.nodeadm), (&None, &Program::Missing));
        for (path, text) in [
            ("/usr/lib/os-release", "ID=amzn\nVERSION_ID=\"2023\"\n"),
            (NODEADM, "#!/bin/sh\n"),
            ("/usr/sbin/runc", "#!/bin/sh\n"),
            (KUBELET_VERSION, "v1.34.2-eks-1\n"),
        ] {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let seen = look(&root, ECR_PROVIDER, &|_| ());
        assert!(seen.image.unwrap().is_al2023());
        assert_eq!((seen.nodeadm, seen.runc), (Program::Usable, Program::Usable));
        assert_eq!(seen.containerd, Program::Missing);
        assert_eq!(seen.kubelet_version.as_deref(), Some("v1.34.2-eks-1"));
    }
}
