//! The kernel log, `/dev/kmsg`: read since the boot without waiting, then followed.
//!
//! The device gives a record a read, from the oldest that it still has. Records that were
//! overwritten before they could be read are gone, and the reading goes on behind them. Where the
//! path is a regular file (a node that is a directory), it is read line by line as it grows.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Root;
use super::files::FileError;

/// Where it is.
pub const PATH: &str = "/dev/kmsg";
/// The kernel refuses to read a record into less room than it needs, and none needs more.
const RECORD_MAX: usize = 8192;
/// How much is taken at once: a log that floods must not keep us from everything else.
const BATCH: usize = 4096;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number since the boot.
    pub number: u64,
    /// When, since the boot.
    pub at: Duration,
    /// What it says.
    pub text: String,
}

/// Follows the kernel log from its first record that is still there.
#[derive(Debug)]
pub struct KernelLog {
    path: PathBuf,
    file: File,
    /// A device gives whole records, anything else bytes.
    is_device: bool,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
    /// How many lines there have been, for those that do not say their number.
    lines: u64,
}

impl KernelLog {
    /// Opens the kernel log below `root`.
    ///
    /// # Errors
    /// When it is not there, or may not be read.
    pub fn open(root: &Root) -> Result<Self, FileError> {
        let path = root.path(PATH);
        let open = |path: &Path| {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
                .open(path)?;
            let is_device = file.metadata()?.file_type().is_char_device();
            Ok((file, is_device))
        };
        let (file, is_device) =
            open(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        Ok(Self { path, file, is_device, rest: Vec::new(), lines: 0 })
    }

    /// What has been logged since the last call, oldest first; empty when nothing has. Never waits.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub fn read(&mut self) -> Result<Vec<Message>, FileError> {
        let read = if self.is_device { self.records() } else { self.grown() };
        read.map_err(|source| FileError::Read { path: self.path.clone(), source })
    }

    fn records(&mut self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut buffer = [0; RECORD_MAX];
        while messages.len() < BATCH {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => messages.extend(self.message(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // EPIPE: overwritten meanwhile. EINVAL: longer than any record may be. Both go on
                // with the next.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(nix::libc::EPIPE | nix::libc::EINVAL | nix::libc::EINTR)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }

    fn grown(&mut self) -> io::Result<Vec<Message>> {
        if self.file.metadata()?.len() < self.file.stream_position().unwrap_or_default() {
            // Written anew, as with a boot.
            self.file.seek(SeekFrom::Start(0))?;
            self.rest.clear();
            self.lines = 0;
        }
        let mut messages = Vec::new();
        let mut buffer = [0; RECORD_MAX];
        while messages.len() < BATCH {
            let length = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            self.rest.extend_from_slice(&buffer[..length]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                messages.extend(self.message(&line));
            }
            // No line of a log is that long: it is dropped, or it would grow for ever.
            if self.rest.len() > RECORD_MAX {
                self.rest.clear();
            }
        }
        Ok(messages)
    }

    fn message(&mut self, bytes: &[u8]) -> Option<Message> {
        let number = self.lines;
        self.lines += 1;
        parse(&String::from_utf8_lossy(bytes), number)
    }
}

/// Everything that the kernel log has now.
///
/// # Errors
/// As [`KernelLog::open`] and [`KernelLog::read`].
pub fn since_boot(root: &Root) -> Result<Vec<Message>, FileError> {
    let mut log = KernelLog::open(root)?;
    let mut all = log.read()?;
    loop {
        let more = log.read()?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// `6,1234,5678901,-;NVRM: loading …` and its like; a line without such a head is all text.
fn parse(record: &str, fallback: u64) -> Option<Message> {
    // What follows the first line of a record are its `KEY=value` pairs.
    let line = record.lines().next().filter(|line| !line.starts_with(' '))?;
    let head = line.split_once(';').and_then(|(head, text)| {
        let mut fields = head.split(',');
        let _priority: u32 = fields.next()?.parse().ok()?;
        let number = fields.next()?.parse().ok()?;
        let at = Duration::from_micros(fields.next()?.parse().ok()?);
        Some(Message { number, at, text: text.to_owned() })
    });
    let plain = || Message { number: fallback, at: Duration::ZERO, text: line.to_owned() };
    Some(head.unwrap_or_else(plain)).filter(|message| !message.text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_record_has_number_time_and_text() {
        let record =
            "4,1234,5678901,-,caller=T12;NVRM: Xid (PCI:0000:53:00): 79, x; y\n SUBSYSTEM=pci\n";
        let message = parse(record, 0).unwrap();
        assert_eq!((message.number, message.at), (1234, Duration::from_micros(5_678_901)));
        assert_eq!(message.text, "NVRM: Xid (PCI:0000:53:00): 79, x; y");
        let message = parse("NVRM: GPU; lost\n", 7).unwrap();
        assert_eq!((message.number, message.text.as_str()), (7, "NVRM: GPU; lost"));
        assert_eq!(parse(" DEVICE=c195:0\n", 0), None);
        assert_eq!(parse("\n", 0), None);
    }

    #[test]
    fn a_file_is_followed_as_it_grows_and_read_anew_when_it_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert!(KernelLog::open(&root).unwrap_err().is_not_found());
        fs::create_dir(root.path("/dev")).unwrap();
        let mut file = fs::File::create(root.path(PATH)).unwrap();
        write!(file, "6,0,10,-;one\n6,1,20,-;tw").unwrap();
        let mut log = KernelLog::open(&root).unwrap();
        let texts = |log: &mut KernelLog| -> Vec<String> {
            log.read().unwrap().into_iter().map(|message| message.text).collect()
        };
        assert_eq!(texts(&mut log), ["one"]);
        assert_eq!(texts(&mut log), [""; 0]);
        write!(file, "o\n6,2,30,-;three\n").unwrap();
        assert_eq!(texts(&mut log), ["two", "three"]);
        assert_eq!(since_boot(&root).unwrap().len(), 3);

        fs::write(root.path(PATH), "6,0,5,-;anew\n").unwrap();
        assert_eq!(texts(&mut log), ["anew"]);
    }

    /// The real device, where this test may read it: it neither waits nor ends in an error.
    #[test]
    fn the_device_is_read_to_its_end() {
        match since_boot(&Root::default()) {
            Ok(messages) => {
                let numbers: Vec<u64> = messages.iter().map(|message| message.number).collect();
                assert!(numbers.is_sorted(), "records come in their order");
            }
            Err(error) => eprintln!("skipped: {}", contract::ErrorChain(&error)),
        }
    }
}
