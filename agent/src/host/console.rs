//! The serial console: read from outside with no network and no IAM.
//!
//! A console can block for as long as it likes, so it has a thread of its own and is opened
//! non-blocking. The latest line wins: one that was not written when the next one came is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long one attempt waits for room on the console, in milliseconds.
const ROOM_WAIT_MS: u16 = 200;

/// How long a console that cannot be opened or written is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// A handle on the console's thread.
#[derive(Debug)]
pub struct Console {
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Option<String>,
    writing: bool,
    closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every point where a thread could have panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Starts the thread that writes to the device at `path`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let shared = Arc::clone(&slot);
        thread::Builder::new().name("console".into()).spawn(move || serve(&shared, &path))?;
        Ok(Self { slot })
    }

    /// Hands over a line (without its line feed), in place of one that still waits.
    pub fn say(&self, line: String) {
        self.slot.lock().pending = Some(line);
        self.slot.changed.notify_all();
    }

    /// Waits until what was said is written, at most for `limit`; false when it is not.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let state = self.slot.lock();
        let busy = |state: &mut State| state.pending.is_some() || state.writing;
        let (_state, waited) = self
            .slot
            .changed
            .wait_timeout_while(state, limit, busy)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.slot.lock().closed = true;
        self.slot.changed.notify_all();
    }
}

fn serve(slot: &Slot, path: &Path) {
    loop {
        let mut state = slot.lock();
        while state.pending.is_none() && !state.closed {
            state = slot.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(line) = state.pending.take() else { return };
        state.writing = true;
        drop(state);

        let written = write_line(slot, path, &line);
        let mut state = slot.lock();
        state.writing = false;
        if written.is_err() && state.pending.is_none() && !state.closed {
            state.pending = Some(line);
            let again = |state: &mut State| !state.closed;
            // Wakes early when the handle is dropped.
            drop(slot.changed.wait_timeout_while(state, RETRY, again));
        } else {
            drop(state);
        }
        slot.changed.notify_all();
    }
}

/// Writes one line; gives up when a newer one waits and nothing of this one is out yet.
fn write_line(slot: &Slot, path: &Path, line: &str) -> io::Result<()> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut console = OpenOptions::new().append(true).custom_flags(flags).open(path)?;
    let bytes = format!("{line}\n").into_bytes();
    let mut rest = bytes.as_slice();
    let give_up = Instant::now() + Duration::from_secs(10);
    while !rest.is_empty() {
        match console.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let untouched = rest.len() == bytes.len();
                if untouched && slot.lock().pending.is_some() {
                    return Ok(());
                }
                if Instant::now() > give_up {
                    return Err(error);
                }
                wait_for_room(&console)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(console: &File) -> io::Result<()> {
    let mut room = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
    poll(&mut room, PollTimeout::from(ROOM_WAIT_MS))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn appends_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "kernel: hello\n").unwrap();
        let console = Console::open(path.clone()).unwrap();
        console.say("one".into());
        assert!(console.flush(SOON));
        console.say("two".into());
        assert!(console.flush(SOON));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kernel: hello\none\ntwo\n");
    }

    #[test]
    fn a_console_that_blocks_gets_the_latest_line_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let full = fill(&mut reader);

        let console = Console::open(path).unwrap();
        for n in 0..50 {
            console.say(format!("line {n}"));
        }
        assert!(!console.flush(Duration::from_millis(50)), "the console is full");
        let mut drained = vec![0; full];
        reader.read_exact(&mut drained).unwrap();
        assert!(console.flush(SOON));
        let mut text = vec![0; 4096];
        let count = reader.read(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..count]).into_owned();
        assert!(text.ends_with("line 49\n"), "{text}");
        assert!(text.lines().count() <= 2, "{text}");
    }

    fn fill(pipe: &mut File) -> usize {
        let mut full = 0;
        while let Ok(count) = pipe.write(&[b'.'; 1024]) {
            full += count;
        }
        full
    }

    #[test]
    fn a_missing_console_is_waited_for_and_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let console = Console::open(path.clone()).unwrap();
        console.say("early".into());
        assert!(!console.flush(Duration::from_millis(50)));
        File::create(&path).unwrap();
        assert!(console.flush(SOON));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "early\n");
    }
}
