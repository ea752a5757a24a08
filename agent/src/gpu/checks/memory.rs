//! A GPU's memory: errors, rows set aside, spares left.

use contract::Reason;

use super::Found;
use crate::gpu::catalogue::Check;
use crate::gpu::sample::{GpuSample, Readings};

pub(super) fn of_gpu(gpu: &GpuSample) -> impl Iterator<Item = Found> {
    let readings = &gpu.readings;
    [
        mode(readings),
        uncorrected(readings),
        sram(readings),
        failed(readings),
        pending(readings),
        retired(readings),
        spares(readings),
    ]
    .into_iter()
    .flatten()
    .map(|found| found.on(gpu))
}

/// HBM without ECC. On other memory it is the owner's choice: a sensor tells the two apart, and not
/// the product's name.
fn mode(readings: &Readings) -> Option<Found> {
    let is_hbm = readings.memory_temperature.is_some();
    let is_off = readings.ecc_mode == Some(false);
    (is_hbm && is_off).then(|| Found::of(Check::EccMode, Reason::EccDisabled, "has ECC off"))
}

fn uncorrected(readings: &Readings) -> Option<Found> {
    let errors = readings.ecc?.volatile_uncorrected.filter(|errors| *errors > 0)?;
    let what = format!("has had {errors} uncorrected memory errors since the driver was loaded");
    Some(Found::of(Check::EccUncorrected, Reason::EccUncorrectable, what))
}

/// The driver's own count of what a board may have in its life.
fn sram(readings: &Readings) -> Option<Found> {
    let what = "has had more uncorrected errors in its SRAM than a board may have";
    let is_over = readings.sram_exceeded?;
    is_over.then(|| Found::of(Check::SramThreshold, Reason::SramErrorsExceeded, what))
}

fn failed(readings: &Readings) -> Option<Found> {
    let what = "could not replace a bad row of its memory";
    let has_failed = readings.remapped_rows?.failed;
    has_failed.then(|| Found::of(Check::RemapFailed, Reason::RowRemapFailed, what))
}

fn pending(readings: &Readings) -> Option<Found> {
    let what = "has a bad row of memory that is replaced at its next reset";
    let is_pending = readings.remapped_rows?.pending;
    is_pending.then(|| Found::of(Check::RemapPending, Reason::RowRemapPending, what))
}

/// What row remapping was before Ampere.
fn retired(readings: &Readings) -> Option<Found> {
    let what = "has a bad page of memory that is retired at its next reset";
    let is_pending = readings.retired_pages_pending?;
    is_pending.then(|| Found::of(Check::RetiredPages, Reason::RowRemapPending, what))
}

fn spares(readings: &Readings) -> Option<Found> {
    let banks = readings.remapper_banks?;
    let what = match (banks.none, banks.low) {
        (0, 0) => return None,
        (0, low) => format!("has {low} banks of memory with few spare rows left"),
        (none, low) => format!("has {none} banks of memory without a spare row, {low} with few"),
    };
    Some(Found::of(Check::RemapSpares, Reason::RowRemapSparesLow, what))
}
