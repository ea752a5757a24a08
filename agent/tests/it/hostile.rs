//! Whatever somebody else wrote, the agent reads it without a panic, in time, and with a verdict.
//!
//! A fuzzer without a fuzzer's toolchain: the seeds in `tests/fuzz/seeds` are cut, spliced and bent by
//! a generator with a fixed seed, the same on every machine. `make fuzz` takes more rounds; input
//! that breaks something is left in the folder that the failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::gpu::{library, module, pci};
use agent::host::{Root, clock};
use agent::kube::kubeconfig;
use agent::phases::configure::{self, NodeConfig, agent_file, mime, placement, source, yaml};
use agent::phases::nodeadm::{self, End, Run};
use agent::phases::{bootstrap, preflight, register};
use agent::pipeline::journal::Journal;
use agent::report::file;
use contract::{ConsoleLine, JoinReport, Phase, Reason};

/// Rounds a target, unless `FUZZ_ROUNDS` says more.
const ROUNDS: u64 = 400;

/// What is late on the slowest machine: everything here reads a few kilobytes.
const LATE: Duration = Duration::from_secs(20);

/// Places where parsers turn.
const TOKENS: [&[u8]; 24] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b":",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"---\n",
    b"--//\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"99999999999999999999",
    b"=\n",
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % sides.max(1)
    }

    /// Bends `bytes` in one to four places.
    fn bend(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bent = bytes.to_vec();
        for _ in 0..=self.roll(4) {
            let (from, to) = (self.roll(bent.len() + 1), self.roll(bent.len() + 1));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 64));
            match self.roll(7) {
                0 => bent.truncate(to),
                1 => drop(bent.drain(from..to)),
                2 => drop(bent.splice(from..from, TOKENS[self.roll(TOKENS.len())].to_vec())),
                3 => drop(bent.splice(from..to, TOKENS[self.roll(TOKENS.len())].to_vec())),
                4 => {
                    let again = bent[from..to].repeat(1 + self.roll(40));
                    drop(bent.splice(to..to, again));
                }
                5 => {
                    let cut = self.roll(other.len() + 1);
                    let end = other.len().min(cut + 200);
                    drop(bent.splice(from..to, other[cut..end].to_vec()));
                }
                _ => {
                    if let Some(byte) = bent.get_mut(from) {
                        *byte ^= 1 << self.roll(8);
                    }
                }
            }
        }
        bent
    }
}

fn seeds(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::path);
        for path in entries.into_iter().map(|entry| entry.path()) {
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push((path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds").join(folder);
    let mut found = Vec::new();
    walk(&base, &mut found);
    found
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(&base).unwrap().into(), bytes))
        .collect()
}

/// Runs a target on every seed as it is, and on bent ones.
fn hostile(folder: &str, mut target: impl FnMut(&Path, &[u8])) {
    let seeds = seeds(folder);
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut attack = |path: &Path, bytes: &[u8]| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(path, bytes)));
        if outcome.is_err() || began.elapsed() > LATE {
            let kept = std::env::temp_dir().join(format!("rollcall-fuzz-{folder}"));
            std::fs::write(&kept, bytes).unwrap();
            panic!(
                "{}: {:?} after {:?}; the input is in {}",
                path.display(),
                outcome,
                began.elapsed(),
                kept.display()
            );
        }
    };
    for (path, bytes) in &seeds {
        attack(path, bytes);
    }
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        let (path, bytes) = &seeds[dice.roll(seeds.len())];
        let (_, other) = &seeds[dice.roll(seeds.len())];
        attack(path, &dice.bend(bytes, other));
    }
}

/// An open gate means that nodeadm's demands are met, and a closed one says why.
fn configure(root: &Root, user_data: Option<&[u8]>) {
    let facts = configure::gather(root, user_data);
    let verdict = configure::verdict(&facts);
    if verdict.is_open() {
        NodeConfig::of(&facts.merged).unwrap();
        let labels = placement::labels(&facts.merged);
        assert_eq!(placement::refused_labels(&labels), [""; 0]);
    } else {
        let contract::Verdict::Fail(findings) = &verdict else { panic!("{verdict:?}") };
        assert!(findings.iter().any(|found| found.reason.is_hard() && !found.summary.is_empty()));
    }
}

#[test]
fn user_data() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    hostile("user-data", |_, bytes| {
        configure(&root, Some(bytes));
        let _ = agent_file::in_user_data(bytes);
        let _ = yaml::parse(bytes);
        if let Some((boundary, body)) = mime::multipart(bytes) {
            let _ = mime::parts(body, &boundary);
        }
        // Reading is a function of the bytes alone.
        assert_eq!(source::user_data(bytes), source::user_data(bytes));
    });
}

#[test]
fn files_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let whole = seeds("node");
    for (path, bytes) in &whole {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let user_data = seeds("user-data").remove(0).1;
    hostile("node", |path, bytes| {
        let place = dir.path().join(path);
        std::fs::write(&place, bytes).unwrap();
        configure(&root, Some(&user_data));
        let _ = bootstrap::written(&root);
        let _ = bootstrap::kubelet_node_name(&root);
        let _ = kubeconfig::cluster(&root);
        let _ = preflight::host::look(&root, preflight::host::ECR_PROVIDER, &|_| ());
        let _ = (pci::gpus(&root), module::read(&root), library::version(&root));
        let _ = (clock::boot_id(&root), clock::uptime(&root));
        let _ = (Journal::load(&root, "boot"), file::read(&root));
        let _ = register::is_admitted(&root, "boot");
        let _ = agent::check_image::check(&root);
        let original = whole.iter().find(|(seed, _)| seed == path).unwrap();
        std::fs::write(&place, &original.1).unwrap();
    });
}

#[test]
fn logs_and_reports() {
    hostile("lines", |_, bytes| {
        let log: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
        let ends = [
            End::TimedOut,
            End::NotStarted("x".into()),
            End::Failed { result: "exit-code".into(), status: Some(1) },
        ];
        for end in ends {
            let run = Run { end, log: log.clone() };
            let found = nodeadm::finding(&run, "run", Phase::Register, Reason::NodeadmRunFailed);
            assert!(found.unwrap().evidence.iter().all(|line| line.chars().count() <= 301));
        }
    });
    hostile("console", |_, bytes| {
        let _ = ConsoleLine::last_in(&String::from_utf8_lossy(bytes));
        let _ = serde_json::from_slice::<JoinReport>(bytes);
    });
}

#[test]
fn an_agent_config_is_read_whole_or_refused() {
    let (_, whole) =
        seeds("node").into_iter().find(|(path, _)| path.ends_with("agent.yaml")).unwrap();
    assert!(agent_file::parse(&String::from_utf8(whole.clone()).unwrap()).is_ok());
    for end in 0..whole.len() {
        // A cut that leaves a whole document is one; nothing else may pass.
        if let Ok(config) = agent_file::parse(&String::from_utf8_lossy(&whole[..end])) {
            assert_eq!((config.version, config.problems()), (1, vec![]));
        }
    }
}
