//! The corpus of documents: every form that user data and drop-ins take, whole and broken.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One node's sources.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    /// None: the metadata service has none.
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    /// nodeadm's check lets it pass, and our gate does not, for a reason that nodeadm finds later.
    pub(super) stricter: bool,
    /// What the stand-in leaves out of nodeadm: YAML 1.1's oddities, and Go's of MIME.
    pub(super) beyond_the_stand_in: bool,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        writeln!(f, "user data: {}", self.user_data.as_deref().map_or("none".into(), text))?;
        self.files.iter().try_for_each(|(name, content)| writeln!(f, "{name}: {}", text(content)))
    }
}

impl Case {
    pub(super) fn of(name: impl Into<String>, user_data: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            user_data: Some(user_data.into()),
            files: Vec::new(),
            stricter: false,
            beyond_the_stand_in: false,
        }
    }

    pub(super) fn file(mut self, name: &'static str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name, content.into()));
        self
    }

    fn stricter(mut self) -> Self {
        self.stricter = true;
        self
    }

    fn odd(mut self) -> Self {
        self.beyond_the_stand_in = true;
        self
    }
}

const WHOLE: &str = "apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: prod
    apiServerEndpoint: https://ABC.gr7.us-east-1.eks.amazonaws.com
    certificateAuthority: UEVN
    cidr: 172.20.0.0/16
";

/// A whole NodeConfig with more of its specification.
fn with(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("{WHOLE}{indented}")
}

pub(super) const HEAD: &str =
    "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"BOUNDARY\"\n\n";

pub(super) fn mime(parts: &[(&str, &str)]) -> String {
    let part =
        |(kind, body): &(&str, &str)| format!("--BOUNDARY\nContent-Type: {kind}\n\n{body}\n");
    format!("{HEAD}{}--BOUNDARY--\n", parts.iter().map(part).collect::<String>())
}

fn node(body: &str) -> String {
    mime(&[("application/node.eks.aws", body)])
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn all() -> Vec<Case> {
    [wrappings(), broken(), scalars(), types(), drop_ins()].concat()
}

fn wrappings() -> Vec<Case> {
    let several = mime(&[
        ("text/cloud-config", "#cloud-config\n"),
        ("application/node.eks.aws", WHOLE),
        ("text/x-shellscript; charset=\"us-ascii\"", "#!/bin/sh\n"),
        ("application/node.eks.aws; charset=utf-8", &with("kubelet: {flags: [--v=4]}")),
    ]);
    let lines =
        base64(&several).as_bytes().chunks(76).map(|l| [l, b"\n"].concat()).collect::<Vec<_>>();
    vec![
        Case::of("a document alone", WHOLE),
        Case::of("one part", node(WHOLE)),
        Case::of("several parts", several.clone()),
        Case::of("base64", base64(&several)),
        Case::of("base64 in lines", lines.concat()),
        Case::of("gzip", gzip(&several)),
        Case::of("base64 of gzip", base64(gzip(&several))),
        Case::of("gzip of base64", gzip(&base64(&several))).odd(),
        Case::of("base64 twice", base64(base64(&several))).odd(),
        Case::of("a part in base64", node(&base64(WHOLE))),
        Case::of("a part in base64 of gzip", node(&base64(gzip(WHOLE)))),
        Case::of("a part in quoted-printable", format!(
            "{HEAD}--BOUNDARY\nContent-Type: application/node.eks.aws\nContent-Transfer-Encoding: quoted-printable\n\n{}\n--BOUNDARY--\n",
            WHOLE.replace('=', "=3D").replace("prod", "p=72od"))).odd(),
        Case::of("CRLF", several.replace('\n', "\r\n")),
        Case::of("a mark before MIME", format!("\u{feff}{several}")).odd(),
        Case::of("a mark before YAML", format!("\u{feff}{WHOLE}")).odd(),
        Case::of("a mark before the content type", format!("\u{feff}{}", HEAD.replace("MIME-Version: 1.0\n", "")) + &several[HEAD.len()..]).odd(),
        Case::of("a blank line before MIME", format!("\n{several}")).odd(),
        Case::of("a preamble and an epilogue", several.replacen("--B", "preamble\n--B", 1) + "epilogue\n"),
        Case::of("an unquoted boundary", several.replace("\"BOUNDARY\"", "BOUNDARY")),
        Case::of("a folded header", several.replace("mixed; ", "mixed;\n ")),
        Case::of("type in capitals", several.replace("application/node", "Application/NODE")),
        Case::of("blanks after a boundary", several.replace("--BOUNDARY\n", "--BOUNDARY  \n")).odd(),
        Case::of("JSON", format!("{:#}", yaml(&with("kubelet: {config: {maxPods: 5}}")))),
        Case::of("the first document of two", format!("{WHOLE}---\nspec: [")),
        Case::of("a leading separator", format!("---\n{WHOLE}")),
    ]
}

fn yaml(text: &str) -> serde_json::Value {
    serde_yaml::from_str(text).unwrap()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn broken() -> Vec<Case> {
    let whole = node(WHOLE);
    let script =
        mime(&[("application/node.eks.aws", WHOLE), ("text/x-shellscript", "#!/bin/sh\nexit 0\n")]);
    let without = |key: &str| -> String {
        WHOLE.lines().filter(|line| !line.contains(key)).map(|line| format!("{line}\n")).collect()
    };
    let mut cases = vec![
        Case { user_data: None, ..Case::of("no user data", "") },
        Case { user_data: None, ..Case::of("no user data, and a drop-in", "") }
            .file("a.yaml", WHOLE),
        Case::of("empty", ""),
        Case::of("blank", "\n\n"),
        Case::of("a script", "#!/bin/bash\n/etc/eks/bootstrap.sh prod\n"),
        Case::of("no part of ours", mime(&[("text/x-shellscript", "#!/bin/sh\n")])),
        Case::of("cut off in our part", &whole[..whole.len() - 40]),
        Case::of("cut off before the end", &whole[..whole.len() - 16]),
        Case::of("cut off in a later part", &script[..script.len() - 25]),
        Case::of("no boundary named", whole.replace("; boundary=\"BOUNDARY\"", "")),
        Case::of("another boundary", whole.replacen("\"BOUNDARY\"", "\"OTHER\"", 1)),
        Case::of("gzip of garbage", [0x1f, 0x8b, 8, 0, 1, 2, 3].as_slice()),
        Case::of("gzip cut off", &gzip(&whole)[..60]),
        Case::of("not UTF-8", [WHOLE.as_bytes(), b"#\xff\xfe\n"].concat()),
        Case::of("a control character", format!("{WHOLE}#\u{7}\n")).odd(),
        Case::of("a tab", WHOLE.replace("    name", "\tname")),
        Case::of(
            "a part that does not decode",
            mime(&[("application/node.eks.aws", WHOLE), ("application/node.eks.aws", "a: [")]),
        ),
        Case::of("a part of another kind", node(&WHOLE.replace("NodeConfig", "Other"))),
        Case::of(
            "a list of NodeConfigs",
            node("apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfigList\nitems: []\n"),
        )
        .odd(),
        Case::of(
            "a part with a malformed head",
            whole.replace("Content-Type: application", "Content Type application"),
        )
        .odd(),
        Case::of(
            "a part with a bad media type",
            whole.replace("application/node.eks.aws", "application/ node"),
        )
        .odd(),
        Case::of("a flow map is JSON", "{apiVersion: node.eks.aws/v1alpha1, kind: NodeConfig}"),
        Case::of("text after JSON", format!("{}x", yaml(WHOLE))),
        Case::of("an alias to nothing", format!("{WHOLE}  kubelet: *x\n")),
        Case::of("a CA that is not base64", WHOLE.replace("UEVN", "'UE*N'")),
        Case::of("a CA without padding", WHOLE.replace("UEVN", "UEV")),
        Case::of("a CA with loose bits", WHOLE.replace("UEVN", "'UEU='").replace("UEU", "UEV"))
            .odd(),
        Case::of("an empty CA", WHOLE.replace("UEVN", "''")).stricter(),
        Case::of("a name of blanks", WHOLE.replace("prod", "' '")).stricter(),
        Case::of(
            "a strategy that no script knows",
            with("instance: {localStorage: {strategy: RAID5}}"),
        )
        .stricter(),
        Case::of(
            "a label that kubelet refuses",
            with("kubelet: {flags: ['--node-labels=node-role.kubernetes.io/x=']}"),
        )
        .stricter(),
        Case::of(
            "an outpost without its id",
            with("").replace("    name", "    enableOutpost: true\n    name"),
        ),
    ];
    for key in ["name:", "apiServerEndpoint:", "certificateAuthority:", "cidr:"] {
        cases.push(Case::of(format!("no {key}"), node(&without(key))));
    }
    cases
}

/// Plain and quoted scalars, and what they mean in YAML 1.1 alone.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "yes", "No", "on", "OFF", "y", "n", "true", "True", "tRUE", "~", "null", "NULL", "''",
    "'yes'", "\"no\"", "0755", "08", "0o17", "0b101", "0x1F", "-0x1F", "1_000", "+12", "-7",
    "1.0", "1.", ".5", "1e3", "1E+2", "1e", "1e999", "12345678901234567890",
    "123456789012345678901234567890", "-9223372036854775809", "2020-01-01",
    "2020-01-01T00:00:00Z", "1:30", "0x", "+", "- a", "!!str 5", "!!int '5'", "!!float 5",
    "!!bool x", "!own 5", "!!binary aGk=", "! 5", ".inf", ".nan", "-.INF", "a b", "1 2", "<<",
    "=", "|\n    text\n    more\n", ">-\n    text\n    more\n", "{}", "[]", "[1, a, {b: c}]",
    "\"\\u0041\\x41\\t\"", "'it''s'", "1__0", "_1", "1_", "00", "0", "-0", "+0x10", "0B1", "0O7",
];

/// Every scalar as a value and as a key of kubelet's configuration, and as a gate.
fn scalars() -> Vec<Case> {
    let value = |word: &&str| {
        let block = word.starts_with(['|', '>', '-']) && word.contains(['\n', ' ']);
        let start = if block && word.starts_with('-') { "\n     " } else { "" };
        Case::of(
            format!("the value {word}"),
            with(&format!("kubelet:\n  config:\n    a: {start}{word}\n    z: 1")),
        )
        .odd()
    };
    let key = |word: &str| {
        Case::of(format!("the key {word}"), with(&format!("kubelet:\n  config:\n    {word}: 1")))
            .odd()
    };
    let gate = |word: &str| {
        Case::of(
            format!("the gate {word}"),
            with(&format!("featureGates: {{InstanceIdNodeName: {word}}}")),
        )
        .odd()
    };
    let mut cases: Vec<Case> = WORDS.iter().map(value).collect();
    cases.extend(
        ["yes", "1", "0x10", "~", "1.5", "'1'", "[a]", "2020-01-01", "18446744073709551615"]
            .map(key),
    );
    cases.extend(["yes", "off", "~", "'true'", "1", "''"].map(gate));
    for (name, text) in [
        (
            "merge keys",
            "kubelet:\n  config:\n    a: &a {x: 1, k: 1}\n    b: {k: 2, <<: *a, z: 3}\n    c: {<<: [{x: 9}, *a], k: 5}",
        ),
        ("a merge of a scalar", "kubelet:\n  config:\n    a: {<<: 5}"),
        (
            "a merge of an alias of a list",
            "kubelet:\n  config:\n    l: &l [{x: 1}]\n    a: {<<: *l}",
        ),
        ("aliases", "kubelet:\n  config:\n    a: &a [1, 2]\n    b: *a\n    c: {d: *a}"),
        ("an alias to itself", "kubelet:\n  config:\n    a: &a [*a]"),
        ("a key twice", "kubelet:\n  config:\n    a: 1\n    a: 2"),
        ("a quoted merge key", "kubelet:\n  config:\n    a: {'<<': {x: 1}}"),
    ] {
        cases.push(Case::of(name, with(text)).odd());
    }
    cases
}

fn types() -> Vec<Case> {
    [
        "kubelet: {flags: --a}",
        "kubelet: {flags: [1]}",
        "kubelet: {flags: [null, a]}",
        "kubelet: {config: []}",
        "kubelet: null",
        "kubelet: {maxPodsExpression: 5}",
        "instance: {environment: {default: {A: 1}}}",
        "instance: {environment: {default: {A: null}}}",
        "instance: {environment: {default: null}}",
        "instance: {environment: {default: x}}",
        "instance: {localStorage: {disabledMounts: SOCI}}",
        "instance: {network: {nameservers: [1.2.3.4, ''], domains: null}}",
        "featureGates: {Foo: true, Bar: false}",
        "featureGates: []",
        "containerd: {config: 5}",
        "containerd: {config: '= broken'}",
        "containerd: {config: \"[a]\\nb = 1\\n\", baseRuntimeSpec: {a: {b: null}}}",
        "nonsense: {a: 1}",
        "Kubelet: {flags: [a]}",
        "kubelet: {Flags: [a], config: {}}",
    ]
    .into_iter()
    .map(|spec| Case::of(spec, with(spec)))
    .chain([
        Case::of("a list for a map", with("kubelet: []")).odd(),
        Case::of("metadata with a number", WHOLE.replace("spec:", "metadata: {name: 5}\nspec:"))
            .odd(),
        Case::of(
            "metadata with labels",
            WHOLE.replace("spec:", "metadata: {labels: {a: b}}\nspec:"),
        ),
        Case::of("a list as a document", "- a\n"),
        Case::of("spec is text", "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: x\n"),
        Case::of("another version", WHOLE.replace("v1alpha1", "v1")),
    ])
    .collect()
}

fn drop_ins() -> Vec<Case> {
    let spec =
        |spec: &str| format!("apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {spec}\n");
    vec![
        Case::of("all in drop-ins", "#!/bin/sh\n").file("a.yaml", WHOLE),
        Case::of("none that counts", WHOLE).file("a.txt", "junk").file("b.yaml.bak", "junk"),
        Case::of("by name, whatever the case", WHOLE)
            .file("20-b.YML", spec("{cluster: {name: b}, kubelet: {flags: [b]}}"))
            .file("10-a.json", spec("{cluster: {name: a}, kubelet: {flags: [a]}}"))
            .file("Z.yaml", spec("{kubelet: {flags: [z]}}")),
        Case::of("MIME in a drop-in", WHOLE).file("a.yaml", node(&spec("{cluster: {name: a}}"))),
        Case::of("MIME without ours in a drop-in", WHOLE)
            .file("a.yaml", mime(&[("text/plain", "x")])),
        Case::of("base64 in a drop-in", WHOLE).file("a.yaml", base64(WHOLE)),
        Case::of("gzip in a drop-in", WHOLE).file("a.yaml", gzip(WHOLE)),
        Case::of("an empty drop-in", WHOLE).file("a.yaml", ""),
        Case::of("a broken drop-in", WHOLE).file("a.yaml", "a: ["),
        Case::of("an ignored part, and a drop-in", node("a: [")).file("a.yaml", WHOLE),
        Case::of("two clusters", WHOLE).file("a.yaml", WHOLE.replace("prod", "test")),
        Case::of("TOML over TOML", with("containerd: {config: \"x = 1\\n[a]\\nl = [1]\\n\"}"))
            .file("a.yaml", spec("{containerd: {config: \"y = false\\n[a]\\nl = [2]\\n\"}}")),
        Case::of("broken TOML over TOML", with("containerd: {config: \"x = 1\"}"))
            .file("a.yaml", spec("{containerd: {config: \"= 1\"}}")),
        Case::of(
            "a value that changes its type in between",
            with("kubelet: {config: {x: {p: 1}}}"),
        )
        .file("a.yaml", spec("{kubelet: {config: {x: s}}}"))
        .file("b.yaml", spec("{kubelet: {config: {x: {q: 2}}}}")),
        Case::of("null in a drop-in", with("kubelet: {config: {a: 1, b: {c: 1}}}"))
            .file("a.yaml", spec("{kubelet: {config: {a: null, b: {c: null}}}}")),
    ]
}
