//! What `packer build -machine-readable` says, line by line: `time,target,kind,data…`, with commas and
//! line ends escaped (developer.hashicorp.com/packer, "Machine-readable output"). Pure.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Packer begins a step of its own.
    Step(String),
    /// What a step or a provisioner says.
    Detail(String),
    /// An error.
    Error(String),
    /// The image that was made.
    Made {
        /// Its region.
        region: String,
        /// Its id.
        image: String,
    },
    /// Nothing to be shown.
    Nothing,
}

/// Reads a line. What is none of Packer's form (its own crash, a plugin's words) is a detail.
#[must_use]
pub fn read(line: &str) -> Said {
    let line = line.trim_end_matches(['\r', '\n']);
    let mut parts = line.splitn(4, ',');
    let head = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(time), Some(_), Some(kind), Some(data)) = head else { return plain(line) };
    if time.is_empty() || !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return plain(line);
    }
    match kind {
        "ui" => of_ui(data),
        "artifact" => artifact(data),
        _ => Said::Nothing,
    }
}

fn plain(line: &str) -> Said {
    if line.trim().is_empty() { Said::Nothing } else { Said::Detail(line.to_owned()) }
}

fn of_ui(data: &str) -> Said {
    let (level, text) = data.split_once(',').unwrap_or((data, ""));
    let text = unescape(text);
    let text = without_source(&text);
    match level {
        _ if text.is_empty() => Said::Nothing,
        "say" => Said::Step(text),
        "error" => Said::Error(text),
        _ => Said::Detail(text),
    }
}

/// `0,id,us-east-1:ami-0123…`: of several regions the first is the build's own.
fn artifact(data: &str) -> Said {
    let made = data.split_once(",id,").and_then(|(_, id)| {
        let (region, image) = unescape(id).split(',').next()?.split_once(':').map(own)?;
        image.starts_with("ami-").then_some(Said::Made { region, image })
    });
    made.unwrap_or(Said::Nothing)
}

fn own((region, image): (&str, &str)) -> (String, String) {
    (region.to_owned(), image.to_owned())
}

fn unescape(text: &str) -> String {
    text.replace("%!(PACKER_COMMA)", ",").replace("\\n", "\n").replace("\\r", "")
}

/// A build has one source, whose name stands before every line: `==> rollcall.amazon-ebs.x: …`.
fn without_source(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_start_matches("==>").trim_start();
        let named = line.split_once(": ").filter(|(source, _)| {
            source.contains("amazon-ebs.") && !source.contains(char::is_whitespace)
        });
        named.map_or(line, |(_, said)| said).trim_end()
    });
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        for (line, said) in [
            (
                "1763768195,,ui,say,==> rollcall.amazon-ebs.eks_gpu_node: Launching a source AWS instance...",
                Said::Step("Launching a source AWS instance...".into()),
            ),
            (
                "1763768195,,ui,message,    rollcall.amazon-ebs.eks_gpu_node: a%!(PACKER_COMMA) b",
                Said::Detail("a, b".into()),
            ),
            (
                "1763768195,,ui,error,Build 'x' errored after 2 seconds: Script exited with non-zero exit status: 3",
                Said::Error(
                    "Build 'x' errored after 2 seconds: Script exited with non-zero exit status: 3"
                        .into(),
                ),
            ),
            (
                "1763768195,rollcall.amazon-ebs.eks_gpu_node,artifact,0,id,us-east-1:ami-0123456789abcdef0\n",
                Said::Made { region: "us-east-1".into(), image: "ami-0123456789abcdef0".into() },
            ),
            (
                "1763768195,x,artifact,0,id,us-east-1:ami-01%!(PACKER_COMMA)us-west-2:ami-02",
                Said::Made { region: "us-east-1".into(), image: "ami-01".into() },
            ),
            ("1763768195,x,artifact,0,builder-id,mitchellh.amazonebs", Said::Nothing),
            ("1763768195,,version,1.15.1", Said::Nothing),
            ("1763768195,,ui,say,", Said::Nothing),
            (
                "panic: runtime error, with, commas",
                Said::Detail("panic: runtime error, with, commas".into()),
            ),
            ("", Said::Nothing),
        ] {
            assert_eq!(read(line), said, "{line}");
        }
    }

    #[test]
    fn lines_within_a_line_stay_lines() {
        let line = "1,,ui,message,    rollcall.amazon-ebs.n: one\\n    rollcall.amazon-ebs.n: two: three\\n";
        assert_eq!(read(line), Said::Detail("one\ntwo: three".into()));
    }
}
