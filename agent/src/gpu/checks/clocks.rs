//! What holds a GPU's clocks down, and how far it is from that.
//!
//! The power limit (0x04) and idling (0x01) are how GPUs work and are never said.

use contract::Reason;

use super::Found;
use crate::gpu::catalogue::Check;
use crate::gpu::sample::GpuSample;

/// `nvmlClocksEventReasonHwSlowdown`: hardware, by half or more. Set beside the two that say for what.
const HARDWARE: u64 = 0x08;
/// `nvmlClocksEventReasonHwThermalSlowdown`.
const THERMAL: u64 = 0x40;
/// `nvmlClocksEventReasonHwPowerBrakeSlowdown`.
const POWER_BRAKE: u64 = 0x80;

/// So many degrees before hardware slows a GPU down it is worth an event.
const NEAR: i64 = 3;

pub(super) fn of_gpu(gpu: &GpuSample) -> impl Iterator<Item = Found> {
    let mask = gpu.readings.clock_event_reasons.unwrap_or_default();
    let heat = (mask & THERMAL != 0).then(|| {
        Found::of(Check::HwThermal, Reason::ThermalSlowdown, "is held down by hardware for heat")
    });
    let power = (mask & POWER_BRAKE != 0).then(|| {
        let what = "is held down by hardware because the power supply asks for it";
        Found::of(Check::HwPowerBrake, Reason::PowerBrakeSlowdown, what)
    });
    let unsaid = (mask & (HARDWARE | THERMAL | POWER_BRAKE) == HARDWARE).then(|| {
        Found::of(Check::HwSlowdown, Reason::HardwareSlowdown, "is held down by hardware")
    });
    let near = gpu.readings.slowdown_margin.filter(|margin| *margin <= NEAR).map(|margin| {
        let what = format!("is {margin} degrees from where hardware holds it down for heat");
        Found::of(Check::Temperature, Reason::TemperatureNearLimit, what)
    });
    [heat, power, unsaid, near].into_iter().flatten().map(|found| found.on(gpu))
}

/// Whether hardware holds the GPU's clocks down at all; none when it does not say.
pub(super) fn is_slowed(gpu: &GpuSample) -> Option<bool> {
    Some(gpu.readings.clock_event_reasons? & (HARDWARE | THERMAL | POWER_BRAKE) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::sample::Readings;

    fn gpu(mask: Option<u64>, margin: Option<i64>) -> GpuSample {
        let readings =
            Readings { clock_event_reasons: mask, slowdown_margin: margin, ..Readings::default() };
        GpuSample { index: 3, readings, ..GpuSample::default() }
    }

    #[test]
    fn what_holds_it_down_is_named_by_its_cause_and_a_full_load_is_none() {
        for (mask, wanted) in [
            (None, None),
            (Some(0), None),
            // Idle, application clocks, power limit, sync boost, software for heat, display.
            (Some(0x1 | 0x2 | 0x4 | 0x10 | 0x20 | 0x100), None),
            (Some(0x08), Some(Reason::HardwareSlowdown)),
            (Some(0x48), Some(Reason::ThermalSlowdown)),
            (Some(0x40 | 0x4), Some(Reason::ThermalSlowdown)),
            (Some(0x88), Some(Reason::PowerBrakeSlowdown)),
        ] {
            let gpu = gpu(mask, Some(40));
            let found: Vec<_> = of_gpu(&gpu).collect();
            let reasons: Vec<Reason> = found.iter().map(|found| found.reason).collect();
            assert_eq!(reasons, Vec::from_iter(wanted), "{mask:?}");
            assert_eq!(is_slowed(&gpu), mask.map(|_| wanted.is_some()), "{mask:?}");
            for found in found {
                assert!(found.check.entry().reasons.contains(&found.reason));
                assert_eq!(found.gpu, Some(3));
            }
        }
        let both: Vec<Reason> = of_gpu(&gpu(Some(0xc8), None)).map(|found| found.reason).collect();
        assert_eq!(both, [Reason::ThermalSlowdown, Reason::PowerBrakeSlowdown]);
    }

    #[test]
    fn near_the_limit_is_near_and_what_is_not_told_is_not() {
        for (margin, wanted) in
            [(None, false), (Some(40), false), (Some(4), false), (Some(3), true), (Some(-2), true)]
        {
            assert_eq!(of_gpu(&gpu(Some(0), margin)).count() == 1, wanted, "{margin:?}");
        }
    }
}
