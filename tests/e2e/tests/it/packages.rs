//! The deb and the rpm: exactly what `amis/files` lists, made the same again, installed, upgraded and
//! purged on a Debian whose every file is ours to compare.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use e2e::programs::Programs;

/// Makes the packages of a version in a directory, and says what they are.
fn make(version: &str, directory: &Path) -> BTreeSet<String> {
    let programs = Programs::of_this_build().unwrap();
    let made = Command::new(programs.root.join("amis/packages.sh"))
        .arg(programs.bin.join("rollcall-agent"))
        .arg(version)
        .arg(directory)
        .env("GZIP_LEVEL", "1")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let names = std::fs::read_dir(directory).unwrap().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn said(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `-rwxr-xr-x /usr/bin/rollcall-agent` for each line of the list.
fn listed() -> BTreeSet<String> {
    let list = Programs::of_this_build().unwrap().root.join("amis/files");
    let list = std::fs::read_to_string(list).unwrap();
    let lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words.first().is_some_and(|word| !word.starts_with('#')))
        .map(|words| match words[..] {
            ["0755", "-", place] => format!("drwxr-xr-x root/root {place}"),
            ["0755", _, place] => format!("-rwxr-xr-x root/root {place}"),
            ["0644", _, place] => format!("-rw-r--r-- root/root {place}"),
            _ => panic!("unknown: {words:?}"),
        })
        .collect()
}

/// Of `ls`-like lines the mode, owner and path; directories only when they are listed.
fn contents(lines: &str, fields: impl Fn(&[&str]) -> String) -> BTreeSet<String> {
    let listed = listed();
    lines
        .lines()
        .map(|line| fields(&line.split_whitespace().collect::<Vec<_>>()))
        .filter(|line| !line.starts_with('d') || listed.contains(line))
        .collect()
}

#[test]
fn packages_hold_what_the_list_says() {
    let dir = tempfile::tempdir().unwrap();
    let made = make("0.9.0", dir.path());
    for name in &made {
        let held = match name.rsplit_once('.').unwrap().1 {
            "deb" => contents(&said("dpkg-deb", &["-c", name], dir.path()), |f| {
                format!("{} {} {}", f[0], f[1], f[5].trim_start_matches('.').trim_end_matches('/'))
            }),
            _ => contents(&said("rpm", &["-qlpv", name], dir.path()), |f| {
                format!("{} {}/{} {}", f[0], f[2], f[3], f[f.len() - 1])
            }),
        };
        assert_eq!(held, listed(), "{name}");
    }

    // Later, in another directory: the same bytes.
    let again = tempfile::tempdir().unwrap();
    assert_eq!(make("0.9.0", again.path()), made);
    for name in &made {
        let bytes = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
        assert!(bytes(dir.path()) == bytes(again.path()), "{name} is another one");
    }
    if made.len() < 2 {
        eprintln!("only {made:?} was held to the list: rpmbuild is not installed");
    }
}

/// Where the sources lie is in none of what is made from them: tarball, deb and rpm of a copy elsewhere, with
/// other times and another umask, are the same bytes. That the program itself is, `make dist-twice` shows.
#[test]
fn a_copy_of_the_sources_elsewhere_makes_the_same() {
    let programs = Programs::of_this_build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let copy = "umask 077; cp -r --no-preserve=mode,timestamps \"$0/amis\" \"$0/systemd\" .; chmod 0700 amis/*.sh";
    let mut sh = Command::new("sh");
    let copied =
        sh.args(["-c", copy]).arg(&programs.root).current_dir(&elsewhere).status().unwrap();
    assert!(copied.success());
    let agent = programs.bin.join("rollcall-agent");
    let made = |root: &Path, name: &str| {
        let out = dir.path().join(name);
        std::fs::create_dir(&out).unwrap();
        let tarball = out.join("agent.tar.gz");
        let run = |script: &str, arguments: &[&std::ffi::OsStr]| {
            let mut command = Command::new(root.join(script));
            let run =
                command.args(arguments).current_dir(root).env("GZIP_LEVEL", "1").output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        };
        run("amis/tarball.sh", &[agent.as_os_str(), tarball.as_os_str()]);
        run("amis/packages.sh", &[agent.as_os_str(), "0.9.0".as_ref(), out.as_os_str()]);
        let files = std::fs::read_dir(&out).unwrap().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = files
            .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let (here, there) = (made(&programs.root, "here"), made(&elsewhere, "there"));
    assert!(here.len() >= 2, "a tarball and a deb at least");
    for (one, other) in here.iter().zip(&there) {
        assert!(one == other, "{:?} is another one", one.0);
    }
    assert_eq!(here.len(), there.len());
}

/// The story is in the script beside this file: it plays in a mount namespace, on this machine's own
/// files with a layer over them.
#[test]
fn the_deb_installs_upgrades_and_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may lay a layer over this machine's files");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make("0.9.0", dir.path());
    make("0.10.0", dir.path());
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/packages.sh");
    let told = Command::new("timeout")
        .args(["120", "unshare", "--mount", "--pid", "--fork", "--kill-child"])
        .arg(story)
        .arg(dir.path())
        .output()
        .unwrap();
    let both = [told.stdout, told.stderr].concat();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&both));
}
