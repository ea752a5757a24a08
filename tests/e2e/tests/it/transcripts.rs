//! What a person sees: a fleet with one node that fails, from `plan` to `down`, on terminals of 80 by
//! 24 and 200 by 50 and in a log, as golden files. Times, ids and counts of seconds are masked.
//!
//! `UPDATE_GOLDEN=1 cargo test --workspace --test it transcripts -- --ignored` writes them anew: then read them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use e2e::{World, terminal};

/// Where somebody looks.
#[derive(Clone, Copy, Debug)]
enum Place {
    Terminal { columns: u16, rows: u16 },
    Log,
}

impl Place {
    fn name(self) -> String {
        match self {
            Self::Terminal { columns, rows } => format!("{columns}x{rows}"),
            Self::Log => "log".to_owned(),
        }
    }
}

/// Masks what differs from one life to the next.
fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let ends = line.char_indices().chain([(line.len(), ' ')]);
    for (at, char) in ends {
        if char.is_ascii_alphanumeric() || "-.:_".contains(char) {
            word.push(char);
            continue;
        }
        let counts = out.ends_with("attempt ") || line[line.len().min(at)..].starts_with(" s");
        let all_digits = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
        out.push_str(&if counts && all_digits { "#".to_owned() } else { masked_word(&word) });
        word.clear();
        out.push(char);
    }
    // Which phases ran beside the one that failed, and how far, is the machine's haste.
    let timeline = ["  identify ", "  bootstrap "].iter().any(|head| out.starts_with(head));
    let out = if timeline { out.replace(['✓', '…', '–'], "*") } else { out };
    out.trim_end().to_owned()
}

fn masked_word(word: &str) -> String {
    if let Some(before) = word.strip_suffix(':') {
        return format!("{}:", masked_word(before));
    }
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let hex = |text: &str| text.len() >= 8 && text.chars().all(|c| c.is_ascii_hexdigit());
    let seconds = word.strip_suffix('s').or_else(|| word.strip_suffix("ms")).unwrap_or(word);
    let timed = seconds.len() < word.len() || word.contains('.');
    let is_time = timed && seconds.split('.').all(digits);
    if is_time {
        return "#".to_owned();
    }
    if word.contains('T') && word.ends_with('Z') && word.len() >= 20 {
        return "<time>".to_owned();
    }
    if digits(word) && word.len() == 12 {
        return "<account>".to_owned();
    }
    match word.rsplit_once('-') {
        Some((kind, id)) if hex(id) => format!("{kind}-*"),
        _ if hex(word) && word.chars().any(|c| c.is_ascii_digit()) => "*".to_owned(),
        _ => word.to_owned(),
    }
}

struct Theatre {
    world: World,
    fleet: PathBuf,
    evidence: PathBuf,
}

impl Theatre {
    /// One verb as it is seen at that place: the command, what it says, how it ends.
    fn play(&self, place: Place, args: &[&str]) -> String {
        let mut command = Command::new(self.world.programs.bin.join("control"));
        let fleet = self.fleet.to_str().unwrap();
        let evidence = self.evidence.to_str().unwrap();
        let place_of = |arg: &&str| match *arg {
            "FLEET" => fleet.to_owned(),
            "DIR" => evidence.to_owned(),
            other => other.to_owned(),
        };
        command.args(args.iter().map(place_of)).current_dir(&self.world.dir);
        command.envs(self.world.programs.env.iter().cloned());
        let (lines, code) = match place {
            Place::Terminal { columns, rows } => {
                let shown = terminal::run(command, columns, rows).unwrap();
                (shown.lines, shown.code)
            }
            Place::Log => {
                let ended = command.stdin(std::process::Stdio::null()).output().unwrap();
                let said = [ended.stdout, ended.stderr].concat();
                let said = String::from_utf8(said).unwrap();
                let said = said.trim_end().lines().map(str::to_owned).collect();
                (said, ended.status.code().unwrap())
            }
        };
        let mut text = format!("$ control {}\n", args.join(" "));
        for line in lines {
            let line = line.replace(fleet, "FLEET").replace(evidence, "DIR");
            _ = writeln!(text, "{}", masked(&line));
        }
        _ = writeln!(text, "exit {code}\n");
        text
    }

    async fn life(&self, place: Place) -> String {
        let clear = self.world.lab("fault", &["gpu/0", "clear"]).await.unwrap();
        drop(clear);
        let fault = self.world.lab("fault", &["gpu/0", "gpu-lost=3"]).await.unwrap();
        fault.expect(contract::ExitCode::Success).unwrap();
        let mut text = String::new();
        let verbs: [&[&str]; 7] = [
            &["plan", "-f", "FLEET"],
            &["up", "-f", "FLEET", "--yes"],
            &["status"],
            &["verify"],
            &["diagnose", "gpu/0"],
            &["down", "--dry-run"],
            &["down", "--yes"],
        ];
        for args in verbs {
            text.push_str(&self.play(place, args));
        }
        text
    }
}

fn golden(place: Place, text: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let path = folder.join(format!("{}.txt", place.name()));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = before.lines().zip(text.lines()).find(|(before, now)| before != now);
    assert!(before == text, "{}: {differs:#?}\n{text}", path.display());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three lives of a fleet with the real agent: make transcripts"]
async fn what_a_person_sees_is_the_golden_one() {
    let dir = tempfile::tempdir().unwrap();
    let gear = ["--kubernetes", "standin", "--nodes", "process"];
    let world = World::up(&dir.path().join("lab"), &gear).await.unwrap();
    let fleet = dir.path().join("fleet.yaml");
    std::fs::write(&fleet, crate::fleet_of(1)).unwrap();
    let theatre = Theatre { world, fleet, evidence: dir.path().join("evidence") };
    for place in [
        Place::Terminal { columns: 80, rows: 24 },
        Place::Terminal { columns: 200, rows: 50 },
        Place::Log,
    ] {
        let text = theatre.life(place).await;
        golden(place, &text);
    }
    theatre.world.down().await.unwrap();
}
