//! Where NodeConfigs come from, and what nodeadm makes of each source: the user data (base64, gzip,
//! MIME), and the files in `/etc/eks/nodeadm.d`.
//!
//! nodeadm reads a source as a whole. One part that does not decode, and it ignores all of the user
//! data, or stops at the file; [`Trouble`] says which.

use std::io::Read as _;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use contract::ErrorChain;
use contract::names::{MIME_NODE_CONFIG, NODEADM_DROPIN_DIR};
use serde_json::Value;

use super::typed::{self, Refused};
use super::{fragment, mime, yaml};
use crate::host::{Root, files};

/// The largest document that unwrapping may yield: 16 KiB of gzip can hide gigabytes.
const UNWRAPPED_MAX: u64 = 2 * 1024 * 1024;

/// base64 as Go reads it: padded, and bits that are left over do not matter.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// One source.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// `user data`, or the path of a file.
    pub name: String,
    /// Its form.
    pub form: Form,
    /// Its NodeConfigs in order, or why nodeadm takes none from it.
    pub configs: Result<Vec<Config>, Trouble>,
}

/// What a source turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// There is nothing in it.
    Empty,
    /// MIME with several parts.
    Multipart,
    /// One document alone.
    Alone,
}

/// One NodeConfig.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which one: `user data, part 2`.
    pub place: String,
    /// As written.
    pub document: Value,
    /// Its specification as nodeadm types it.
    pub spec: Value,
}

/// Why nodeadm takes nothing from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It goes on without it, and says nothing but a warning.
    Ignored(String),
    /// It stops there.
    Fatal(String),
}

impl Trouble {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &str {
        match self {
            Self::Ignored(problem) | Self::Fatal(problem) => problem,
        }
    }
}

/// The user data as nodeadm reads it.
#[must_use]
pub fn user_data(bytes: &[u8]) -> Source {
    let name = "user data".to_owned();
    let (form, configs) = match unwrap(bytes) {
        Ok(plain) => read(&plain, &name, Reader::UserData),
        Err(problem) => (Form::Alone, Err(Trouble::Fatal(problem))),
    };
    let form = if bytes.trim_ascii().is_empty() { Form::Empty } else { form };
    Source { name, form, configs }
}

/// The files in `/etc/eks/nodeadm.d` as nodeadm reads them: yaml, yml and json, by name, not deeper;
/// the agent's own fragment among them.
#[must_use]
pub fn drop_ins(root: &Root) -> Vec<Source> {
    let directory = root.path(NODEADM_DROPIN_DIR);
    let is_config = |name: &String| {
        let name = name.to_ascii_lowercase();
        [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix))
    };
    let names = files::names_in(&directory).into_iter().filter(is_config);
    names
        .filter(|name| !directory.join(name).is_dir() || directory.join(name).is_symlink())
        .map(|file| {
            let name = format!("{NODEADM_DROPIN_DIR}/{file}");
            let (form, configs) = match files::read(&directory.join(&file)) {
                Ok(bytes) => read(&bytes, &name, Reader::File),
                Err(error) => (Form::Alone, Err(Trouble::Fatal(ErrorChain(&error).to_string()))),
            };
            Source { name, form, configs }
        })
        .collect()
}

impl Source {
    /// Whether it is the fragment that the agent itself writes.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name == fragment::PATH
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Reader {
    UserData,
    File,
}

/// Reads one document, MIME or not.
fn read(bytes: &[u8], name: &str, reader: Reader) -> (Form, Result<Vec<Config>, Trouble>) {
    let Some((boundary, body)) = mime::multipart(bytes) else {
        return (Form::Alone, config(bytes, name.to_owned(), reader).map(|one| vec![one]));
    };
    let configs = mime::parts(body, &boundary).map_err(Trouble::Fatal).and_then(|parts| {
        let numbered = parts.into_iter().enumerate();
        let wanted =
            numbered.filter(|(_, part)| part.media_type.as_deref() == Some(MIME_NODE_CONFIG));
        wanted
            .map(|(number, part)| {
                let place = format!("{name}, part {}", number + 1);
                match unwrap(&part.content) {
                    Ok(plain) => config(&plain, place, reader),
                    Err(problem) => Err(Trouble::Fatal(format!("{place}: {problem}"))),
                }
            })
            .collect::<Result<Vec<_>, _>>()
    });
    let configs = match (configs, reader) {
        (Ok(none), Reader::File) if none.is_empty() => {
            let problem = format!("it has no part of type `{MIME_NODE_CONFIG}`");
            Err(Trouble::Fatal(problem))
        }
        (configs, _) => configs,
    };
    (Form::Multipart, configs)
}

fn config(bytes: &[u8], place: String, reader: Reader) -> Result<Config, Trouble> {
    let document = yaml::parse(bytes).map_err(Refused::Undecodable);
    let read = document.and_then(|document| Ok((typed::spec(&document)?, document)));
    match read {
        Ok((spec, document)) => Ok(Config { place, document, spec }),
        Err(Refused::Undecodable(problem)) if reader == Reader::UserData => {
            Err(Trouble::Ignored(format!("{place}: {problem}")))
        }
        Err(Refused::Undecodable(problem) | Refused::OtherKind(problem)) => {
            Err(Trouble::Fatal(format!("{place}: {problem}")))
        }
    }
}

/// Takes off base64 once and gzip once, each where it is there.
///
/// # Errors
/// When it is gzip that cannot be read, or is too large.
pub(super) fn unwrap(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let dense: Vec<u8> = bytes.iter().copied().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
    let bytes = BASE64.decode(&dense).unwrap_or_else(|_| bytes.to_vec());
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .take(UNWRAPPED_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|error| format!("gzip that cannot be read: {error}"))?;
    if plain.len() as u64 > UNWRAPPED_MAX {
        return Err(format!("gzip of more than {UNWRAPPED_MAX} bytes"));
    }
    Ok(plain)
}
