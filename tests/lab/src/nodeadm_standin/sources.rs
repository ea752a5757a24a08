//! Where configuration comes from: the instance's user data and drop-in files, in order.

use std::fs;
use std::path::{Path, PathBuf};

use contract::names::MIME_NODE_CONFIG;
use thiserror::Error;

use super::config::{ConfigError, NodeConfigSpec, parse};
use super::enrich::{Imds, ImdsError};
use super::log;
use super::merge::merge;
use crate::user_data::{Document, Part, UserDataError, parse as parse_user_data};

/// Why there is no configuration.
#[derive(Debug, Error)]
pub(super) enum SourceError {
    #[error("unknown config source `{0}`")]
    Unknown(String),
    #[error(transparent)]
    Imds(#[from] ImdsError),
    #[error("failed to read config source `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("config source `{at}` is broken")]
    Broken {
        at: String,
        #[source]
        source: ConfigError,
    },
    #[error("no config in chain")]
    NoneInChain,
}

/// Reads all sources and merges them in order, later over earlier; each is merged in itself first.
pub(super) async fn load(
    root: &Path,
    sources: &[String],
    imds: &Imds,
) -> Result<NodeConfigSpec, SourceError> {
    let mut read_sources = Vec::new();
    for source in sources {
        read_sources.extend(read(root, source, imds).await?);
    }
    merged(read_sources)?.map(|(_, spec)| spec).ok_or(SourceError::NoneInChain)
}

type Placed = (String, NodeConfigSpec);

fn merged(specs: Vec<Placed>) -> Result<Option<Placed>, SourceError> {
    let mut whole: Option<Placed> = None;
    for (at, spec) in specs {
        let spec = match whole {
            None => spec,
            Some((_, earlier)) => merge(earlier, spec)
                .map_err(|source| SourceError::Broken { at: at.clone(), source })?,
        };
        whole = Some((at, spec));
    }
    Ok(whole)
}

async fn read(root: &Path, source: &str, imds: &Imds) -> Result<Option<Placed>, SourceError> {
    if source == "imds://user-data" {
        return merged(from_user_data(&imds.user_data().await?)?);
    }
    let Some(path) = source.strip_prefix("file://") else {
        return Err(SourceError::Unknown(source.to_owned()));
    };
    let path = root.join(path.trim_start_matches('/'));
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Read { path, source }
    };
    let files = if path.is_dir() { drop_ins(&path).map_err(read(&path))? } else { vec![path] };
    let mut specs = Vec::new();
    for file in files {
        let content = fs::read(&file).map_err(read(&file))?;
        let at = file.display().to_string();
        specs.extend(merged(from_file(&at, &content)?)?);
    }
    merged(specs)
}

/// YAML and JSON files, sorted by name, not recursively.
fn drop_ins(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && has_suffix(path))
        .collect();
    files.sort();
    Ok(files)
}

fn has_suffix(path: &Path) -> bool {
    let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| suffix.eq_ignore_ascii_case(known))
}

/// User data that holds no NodeConfig, or one that does not decode, is tolerated as a whole; MIME or
/// gzip that is broken is not.
fn from_user_data(raw: &[u8]) -> Result<Vec<Placed>, SourceError> {
    let at = "imds://user-data";
    let broken = |error: UserDataError| {
        let source = ConfigError::Decode(error.to_string());
        SourceError::Broken { at: at.to_owned(), source }
    };
    let read: Result<Vec<_>, _> = match parse_user_data(raw).map_err(broken)? {
        Document::Multipart(parts) => of_parts(at, parts),
        Document::Plain(content) => one(at, &content).map(|one| vec![one]),
    };
    read.or_else(|error| {
        let problem = contract::ErrorChain(&error).to_string();
        log::warn("Encountered error in config provider", &problem);
        Ok(Vec::new())
    })
}

fn of_parts(at: &str, parts: Vec<Part>) -> Result<Vec<Placed>, SourceError> {
    let ours = parts.into_iter().filter(|part| part.media_type == MIME_NODE_CONFIG);
    ours.map(|part| one(at, &part.content)).collect()
}

fn from_file(at: &str, content: &[u8]) -> Result<Vec<Placed>, SourceError> {
    match parse_user_data(content) {
        Ok(Document::Multipart(parts)) => {
            let specs = of_parts(at, parts)?;
            if specs.is_empty() {
                let source = ConfigError::Decode("could not find NodeConfig".into());
                return Err(SourceError::Broken { at: at.to_owned(), source });
            }
            Ok(specs)
        }
        _ => Ok(vec![one(at, content)?]),
    }
}

fn one(at: &str, content: &[u8]) -> Result<Placed, SourceError> {
    let spec =
        parse(content).map_err(|source| SourceError::Broken { at: at.to_owned(), source })?;
    Ok((at.to_owned(), spec))
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::WHOLE;
    use super::*;

    async fn from_files(files: &[(&str, &str)]) -> Result<NodeConfigSpec, SourceError> {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/eks/nodeadm.d");
        fs::create_dir_all(directory.join("below.yaml")).unwrap();
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
        }
        let sources = ["file:///etc/eks/nodeadm.d/".to_owned()];
        load(root.path(), &sources, &Imds::nowhere()).await
    }

    const FLAG: &str =
        "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {kubelet: {flags: [FLAG]}}\n";

    #[tokio::test]
    async fn drop_ins_are_merged_by_name() {
        let (a, b) = (FLAG.replace("FLAG", "a"), FLAG.replace("FLAG", "b"));
        let files = [("20-b.YML", b.as_str()), ("10-a.yaml", a.as_str()), ("30.txt", "junk")];
        let spec = from_files(&files).await.unwrap();
        assert_eq!(spec.kubelet.flags, ["a", "b"]);
    }

    #[tokio::test]
    async fn what_is_tolerated_and_what_is_fatal() {
        assert!(matches!(from_files(&[]).await, Err(SourceError::NoneInChain)));
        let broken = from_files(&[("a.yaml", "kind: Other\n")]).await;
        assert!(matches!(broken, Err(SourceError::Broken { .. })), "{broken:?}");
        let missing =
            load(Path::new("/nonexistent"), &["file:///x".into()], &Imds::nowhere()).await;
        assert!(matches!(missing, Err(SourceError::Read { .. })));
        let unknown = load(Path::new("/"), &["ftp://x".into()], &Imds::nowhere()).await;
        assert!(matches!(unknown, Err(SourceError::Unknown(_))));
    }

    #[test]
    fn user_data_without_a_node_config_is_tolerated() {
        for text in ["", "#!/bin/sh\n", "just: yaml\n"] {
            assert!(from_user_data(text.as_bytes()).unwrap().is_empty(), "{text}");
        }
        let cut = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nx\n";
        assert!(from_user_data(cut.as_bytes()).is_err());
        assert_eq!(from_user_data(WHOLE.as_bytes()).unwrap().len(), 1);
        let part = |body: &str| {
            format!(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\
                 Content-Type: application/node.eks.aws\n\n{body}\n--B--\n"
            )
        };
        assert_eq!(from_user_data(part(WHOLE).as_bytes()).unwrap().len(), 1);
        assert!(from_user_data(part("kind: Other").as_bytes()).unwrap().is_empty());
    }
}
