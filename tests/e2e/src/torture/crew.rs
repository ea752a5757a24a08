//! A few labs side by side, each living one life after the other until none is left.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::torture::Target;
use crate::torture::lives::{Life, Stage, Undisturbed};

/// The blows of one life: on the way up, on the way down.
pub type Blows = (Option<Target>, Option<Target>);

/// How a life went.
#[derive(Debug)]
pub struct Told {
    /// Its blows.
    pub blows: Blows,
    /// Its end, or what did not converge.
    pub lived: anyhow::Result<Life>,
    /// What could not be removed afterwards.
    pub left: Option<anyhow::Error>,
}

/// Lives that are still to be lived.
type Queue = Arc<Mutex<VecDeque<Blows>>>;

/// Labs at work.
#[derive(Debug)]
pub struct Crew {
    working: JoinSet<anyhow::Result<()>>,
    told: mpsc::UnboundedReceiver<Told>,
}

impl Crew {
    /// Sets `labs` labs to work, `first` among them; the others are brought up beside it. Within a
    /// `LocalSet`: all of them are driven by one thread, which has nothing to do but wait.
    #[must_use]
    pub fn set(
        first: Stage,
        (dir, labs): (&Path, usize),
        model: &Arc<Undisturbed>,
        lives: Vec<Blows>,
    ) -> Self {
        let queue: Queue = Arc::new(Mutex::new(lives.into()));
        let (teller, told) = mpsc::unbounded_channel();
        let mut working = JoinSet::new();
        let mut first = Some(first);
        for number in 1..=labs.max(1) {
            let member = Member {
                dir: dir.join(format!("lab-{number}")),
                model: Arc::clone(model),
                queue: Arc::clone(&queue),
                teller: teller.clone(),
            };
            working.spawn_local(member.work(first.take()));
        }
        Self { working, told }
    }

    /// The next life that has ended; none when all have.
    pub async fn told(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Waits until all labs are down.
    ///
    /// # Errors
    /// When one did not come up or go.
    pub async fn disband(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.working.join_next().await {
            ended??;
        }
        Ok(())
    }
}

struct Member {
    dir: PathBuf,
    model: Arc<Undisturbed>,
    queue: Queue,
    teller: mpsc::UnboundedSender<Told>,
}

impl Member {
    async fn work(self, first: Option<Stage>) -> anyhow::Result<()> {
        let mut stage = match first {
            Some(stage) => stage,
            None => Stage::open(&self.dir).await?,
        };
        while let Some(blows) = self.next() {
            let lived = stage.live(&self.model, blows.0.as_ref(), blows.1.as_ref()).await;
            let left = match lived {
                Ok(_) => None,
                Err(_) => stage.bury(&self.model).await.err(),
            };
            let spoilt = left.is_some();
            // Nobody listens any more when the run has failed elsewhere.
            self.teller.send(Told { blows, lived, left }).ok();
            if spoilt {
                stage.world.down().await?;
                stage = Stage::open(&self.dir).await?;
            }
        }
        stage.world.down().await
    }

    fn next(&self) -> Option<Blows> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
