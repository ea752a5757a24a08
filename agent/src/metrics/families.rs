//! What is said of a GPU: names, kinds and units as dcgm-exporter's default set has them, and ours.

use super::snapshot::SeenGpu;
use crate::gpu::sample::{Activity, Readings};

/// One family.
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// Whether it only grows.
    pub counter: bool,
    /// What it means, and its unit.
    pub help: &'static str,
    /// Its value for a GPU; none where the GPU does not have it.
    pub value: fn(&SeenGpu) -> Option<f64>,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish_non_exhaustive()
    }
}

const MIB: f64 = 1024.0 * 1024.0;

macro_rules! families {
    ($($name:literal $kind:ident $help:literal = |$readings:ident| $value:expr;)*) => {
        [$(Family {
            name: $name,
            counter: families!(@$kind),
            help: $help,
            value: |seen| {
                let $readings: &Readings = &seen.sample.readings;
                $value
            },
        }),*]
    };
    (@gauge) => { false };
    (@counter) => { true };
}

/// A count as metrics have it.
pub(super) fn whole(value: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats on the wire")]
    let value = value as f64;
    value
}

fn signed(value: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats on the wire")]
    let value = value as f64;
    value
}

fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| (whole(bytes) / MIB).floor())
}

fn activity(readings: &Readings, value: fn(&Activity) -> Option<f64>) -> Option<f64> {
    readings.activity.as_ref().and_then(value)
}

/// Of each GPU, in the order in which they are printed.
pub static GPU: &[Family] = &families! {
    "DCGM_FI_DEV_SM_CLOCK" gauge "SM clock frequency (in MHz)." = |r| r.sm_clock.map(f64::from);
    "DCGM_FI_DEV_MEM_CLOCK" gauge "Memory clock frequency (in MHz)." = |r| r.memory_clock.map(f64::from);
    "DCGM_FI_DEV_MEMORY_TEMP" gauge "Memory temperature (in C)." = |r| r.memory_temperature.map(whole);
    "DCGM_FI_DEV_GPU_TEMP" gauge "GPU temperature (in C)." = |r| r.temperature.map(f64::from);
    "DCGM_FI_DEV_POWER_USAGE" gauge "Power draw (in W)." = |r| r.power.map(|mw| f64::from(mw) / 1000.0);
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" counter "Energy used since the driver was loaded (in mJ)." = |r| r.energy.map(whole);
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" counter "PCIe packets sent again." = |r| r.pcie_replays.map(f64::from);
    "DCGM_FI_DEV_PCIE_LINK_GEN" gauge "PCIe generation now: it drops when idle." = |r| r.pcie_generation.map(f64::from);
    "DCGM_FI_DEV_PCIE_LINK_WIDTH" gauge "PCIe lanes now." = |r| r.pcie_width.map(f64::from);
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS" gauge "Mask of what holds the clocks down: 1 idle, 4 power limit, 8 hardware, 64 hardware for heat, 128 power brake." = |r| r.clock_event_reasons.map(whole);
    "DCGM_FI_DEV_GPU_UTIL" gauge "GPU utilization (in %)." = |r| r.gpu_utilization.map(f64::from);
    "DCGM_FI_DEV_MEM_COPY_UTIL" gauge "Memory interface utilization (in %)." = |r| r.memory_utilization.map(f64::from);
    "DCGM_FI_DEV_ENC_UTIL" gauge "Encoder utilization (in %)." = |r| r.encoder_utilization.map(f64::from);
    "DCGM_FI_DEV_DEC_UTIL" gauge "Decoder utilization (in %)." = |r| r.decoder_utilization.map(f64::from);
    "DCGM_FI_DEV_FB_FREE" gauge "Memory that is free (in MiB)." = |r| mib(r.memory.map(|m| m.free));
    "DCGM_FI_DEV_FB_USED" gauge "Memory that programs use (in MiB)." = |r| mib(r.memory.map(|m| m.used));
    "DCGM_FI_DEV_FB_RESERVED" gauge "Memory that the driver keeps (in MiB)." = |r| mib(r.memory.map(|m| m.reserved));
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL" counter "Data over all NVLinks, both ways, since the driver was loaded (in KiB)." = |r| r.nvlink_kib.map(|(sent, received)| whole(sent) + whole(received));
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL" counter "Packets on all NVLinks with a bad checksum." = |r| r.nvlink_errors.and_then(|e| e.crc_flit).map(whole);
    "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL" counter "Data on all NVLinks with a bad checksum." = |r| r.nvlink_errors.and_then(|e| e.crc_data).map(whole);
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL" counter "Packets on all NVLinks sent again." = |r| r.nvlink_errors.and_then(|e| e.replays).map(whole);
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL" counter "NVLinks trained anew." = |r| r.nvlink_errors.and_then(|e| e.recoveries).map(whole);
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS" counter "Memory rows remapped for uncorrectable errors." = |r| r.remapped_rows.map(|rows| f64::from(rows.uncorrectable));
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS" counter "Memory rows remapped for correctable errors." = |r| r.remapped_rows.map(|rows| f64::from(rows.correctable));
    "DCGM_FI_DEV_ROW_REMAP_FAILURE" gauge "Whether a remapping of memory rows has failed." = |r| r.remapped_rows.map(|rows| f64::from(u8::from(rows.failed)));
    "DCGM_FI_DEV_ROW_REMAP_PENDING" gauge "Whether a remapping of memory rows waits for a reset." = |r| r.remapped_rows.map(|rows| f64::from(u8::from(rows.pending)));
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL" counter "Corrected memory errors since the driver was loaded." = |r| r.ecc.and_then(|ecc| ecc.volatile_corrected).map(whole);
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" counter "Uncorrected memory errors since the driver was loaded." = |r| r.ecc.and_then(|ecc| ecc.volatile_uncorrected).map(whole);
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL" counter "Corrected memory errors in the board's life." = |r| r.ecc.and_then(|ecc| ecc.aggregate_corrected).map(whole);
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL" counter "Uncorrected memory errors in the board's life." = |r| r.ecc.and_then(|ecc| ecc.aggregate_uncorrected).map(whole);
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE" gauge "Share of time in which any engine was active (0 to 1)." = |r| activity(r, |a| a.graphics);
    "DCGM_FI_PROF_SM_ACTIVE" gauge "Share of time in which an SM had at least one warp (0 to 1)." = |r| activity(r, |a| a.sm);
    "DCGM_FI_PROF_SM_OCCUPANCY" gauge "Resident warps as a share of the possible (0 to 1)." = |r| activity(r, |a| a.sm_occupancy);
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" gauge "Share of time in which the tensor pipes were active (0 to 1)." = |r| activity(r, |a| a.tensor);
    "DCGM_FI_PROF_DRAM_ACTIVE" gauge "Share of time in which the memory interface was active (0 to 1)." = |r| activity(r, |a| a.dram);
    "DCGM_FI_PROF_PIPE_FP64_ACTIVE" gauge "Share of time in which the FP64 pipes were active (0 to 1)." = |r| activity(r, |a| a.fp64);
    "DCGM_FI_PROF_PIPE_FP32_ACTIVE" gauge "Share of time in which the FP32 pipes were active (0 to 1)." = |r| activity(r, |a| a.fp32);
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE" gauge "Share of time in which the FP16 pipes were active (0 to 1)." = |r| activity(r, |a| a.fp16);
    "DCGM_FI_PROF_PCIE_TX_BYTES" gauge "Data sent over PCIe (in bytes per second)." = |r| activity(r, |a| a.pcie_sent);
    "DCGM_FI_PROF_PCIE_RX_BYTES" gauge "Data received over PCIe (in bytes per second)." = |r| activity(r, |a| a.pcie_received);
    "DCGM_FI_PROF_NVLINK_TX_BYTES" gauge "Data sent over NVLink (in bytes per second)." = |r| activity(r, |a| a.nvlink_sent);
    "DCGM_FI_PROF_NVLINK_RX_BYTES" gauge "Data received over NVLink (in bytes per second)." = |r| activity(r, |a| a.nvlink_received);
    "rollcall_gpu_gsp_up" gauge "Whether the GPU's own processor runs the driver's firmware; off by the image on g4dn, g5 and g5g." = |r| r.gsp.map(|on| f64::from(u8::from(on)));
    "rollcall_gpu_slowdown_margin_celsius" gauge "Degrees that are left until hardware holds the clocks down." = |r| r.slowdown_margin.map(signed);
    "rollcall_gpu_nvlink_failed_recoveries_total" counter "NVLinks that did not come up again." = |r| r.nvlink_errors.and_then(|e| e.failed_recoveries).map(whole);
    "rollcall_gpu_recovery_action" gauge "What the driver asks for: 0 nothing, 1 reset, 2 reboot, 3 drain, 4 drain and reset." = |r| r.recovery_action.map(whole);
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_default_set_is_whole_and_each_name_is_said_once() {
        let names: BTreeSet<_> = GPU.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), GPU.len());
        for name in [
            "SM_CLOCK",
            "MEM_CLOCK",
            "MEMORY_TEMP",
            "GPU_TEMP",
            "POWER_USAGE",
            "TOTAL_ENERGY_CONSUMPTION",
            "PCIE_REPLAY_COUNTER",
            "GPU_UTIL",
            "MEM_COPY_UTIL",
            "ENC_UTIL",
            "DEC_UTIL",
            "FB_FREE",
            "FB_USED",
            "NVLINK_BANDWIDTH_TOTAL",
            "UNCORRECTABLE_REMAPPED_ROWS",
            "CORRECTABLE_REMAPPED_ROWS",
            "ROW_REMAP_FAILURE",
        ] {
            assert!(names.contains(format!("DCGM_FI_DEV_{name}").as_str()), "{name}");
        }
    }
}
