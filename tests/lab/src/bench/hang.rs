//! The whole library hangs: what is served meanwhile, and how soon the watch's unit restarts when it is
//! told to. And a watch that was killed while a fault was there: how soon the next one says that it
//! has gone.

use std::time::Instant;

use contract::names::UNIT_WATCH;
use nix::sys::signal::Signal;

use super::Figure;
use super::join::Node;
use crate::corpus::{metrics, observe};
use crate::systemctl_double::state::Store;
use crate::systemctl_double::units;

/// The hang.
pub(super) const FAULT: &str = "driver-hang";

impl Node<'_> {
    /// Measures under a hang of the whole library.
    ///
    /// # Errors
    /// When the condition or a unit does not follow.
    pub async fn hang(&self) -> anyhow::Result<Vec<Figure>> {
        self.stage.fault(&self.case, FAULT).await?;
        let named = self.until("False", "DriverHang").await?;
        let began = Instant::now();
        let text = metrics::scrape(&self.root).await?;
        let scraped = began.elapsed().as_secs_f64() * 1000.0;
        let gpus = nvml_sim::State::read(&self.root)?.gpus.len();
        let hidden = gpus - observe::gpus_in(&text).min(gpus);
        let began = Instant::now();
        observe::systemctl(&self.root, &["restart", UNIT_WATCH]).await?;
        let watch = began.elapsed().as_secs_f64();
        self.stage.lift(&self.case, FAULT).await?;
        self.until("True", "").await?;
        Ok(vec![
            Figure::of("hang: to condition", "s", vec![named]).within(15.0),
            Figure::of("hang: GPUs not served", "GPUs", vec![hidden as f64]).within(0.0),
            Figure::of("hang: scrape", "ms", vec![scraped]).within(50.0),
            Figure::of("hang: restart of the watch's unit", "s", vec![watch]).within(5.0),
        ])
    }

    /// Kills the watch while a row waits for a reset, and gives it that reset meanwhile.
    ///
    /// # Errors
    /// When the condition does not follow.
    pub async fn earlier_life(&self) -> anyhow::Result<Vec<Figure>> {
        let fault = "row-remap-pending=2";
        self.stage.fault(&self.case, fault).await?;
        self.until("False", "RowRemapPending").await?;
        let watch = units::find(&self.root, UNIT_WATCH);
        if let Some(main) = watch.and_then(|unit| Store::of(&self.root).load(unit).main) {
            main.signal(Signal::SIGKILL);
        }
        self.stage.lift(&self.case, fault).await?;
        let seen = self.until("True", "").await?;
        let name = "health: a fault of an earlier life that is gone, to condition";
        Ok(vec![Figure::of(name, "s", vec![seen]).within(15.0)])
    }
}
