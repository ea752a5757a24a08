//! Ctrl-C and SIGTERM: no new work is started, what is in flight ends.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody asked us to stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: watch::Receiver<bool>,
}

impl Interrupt {
    /// Listens for SIGINT and SIGTERM from now on. The second one ends the process as if nobody
    /// listened, so that a hung call cannot hold the terminal.
    ///
    /// # Errors
    /// When the runtime cannot register a handler.
    pub fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // Nobody listens any more once the command has ended.
            let _ = ask.send(true);
            let second = tokio::select! {
                _ = interrupt.recv() => libc_signal(SignalKind::interrupt()),
                _ = terminate.recv() => libc_signal(SignalKind::terminate()),
            };
            end_process(second);
        });
        Ok(Self { asked })
    }

    /// One that is never asked; for commands that only read.
    #[must_use]
    pub fn never() -> Self {
        let (_, asked) = watch::channel(false);
        Self { asked }
    }

    /// One that a test asks.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (ask, asked) = watch::channel(false);
        (ask, Self { asked })
    }

    /// Whether it has been asked.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *self.asked.borrow()
    }

    /// Ends when it is asked.
    pub async fn raised(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // The listener is gone: it will never be asked.
            std::future::pending::<()>().await;
        }
    }
}

const fn libc_signal(kind: SignalKind) -> i32 {
    kind.as_raw_value()
}

#[expect(clippy::exit, reason = "a second Ctrl-C abandons calls that cannot be cancelled")]
fn end_process(signal: i32) -> ! {
    std::process::exit(128 + signal)
}
