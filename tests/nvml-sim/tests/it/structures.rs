//! The structures that cross the boundary are those of `nvml.h`: sizes, and version words.

use nvml_wrapper_sys::bindings as sys;

/// Sizes by `nvml.h`, as a C compiler lays them out on 64 bits.
#[test]
fn sizes() {
    for (name, size, expected) in [
        ("nvmlPciInfo_t", size_of::<sys::nvmlPciInfo_t>(), 68),
        ("nvmlMemory_t", size_of::<sys::nvmlMemory_t>(), 24),
        ("nvmlMemory_v2_t", size_of::<sys::nvmlMemory_v2_t>(), 40),
        ("nvmlBAR1Memory_t", size_of::<sys::nvmlBAR1Memory_t>(), 24),
        ("nvmlUtilization_t", size_of::<sys::nvmlUtilization_t>(), 8),
        ("nvmlFieldValue_t", size_of::<sys::nvmlFieldValue_t>(), 40),
        ("nvmlEventData_t", size_of::<sys::nvmlEventData_t>(), 32),
        ("nvmlProcessInfo_v1_t", size_of::<sys::nvmlProcessInfo_v1_t>(), 16),
        ("nvmlProcessInfo_v2_t", size_of::<sys::nvmlProcessInfo_v2_t>(), 24),
        ("nvmlViolationTime_t", size_of::<sys::nvmlViolationTime_t>(), 16),
        ("nvmlDeviceAttributes_t", size_of::<sys::nvmlDeviceAttributes_t>(), 40),
        ("nvmlGpuFabricInfo_t", size_of::<sys::nvmlGpuFabricInfo_t>(), 28),
        ("nvmlGpuFabricInfo_v2_t", size_of::<sys::nvmlGpuFabricInfo_v2_t>(), 36),
        ("nvmlGpuFabricInfo_v3_t", size_of::<sys::nvmlGpuFabricInfo_v3_t>(), 40),
        ("nvmlPlatformInfo_v2_t", size_of::<sys::nvmlPlatformInfo_v2_t>(), 44),
        ("nvmlEccSramErrorStatus_v1_t", size_of::<sys::nvmlEccSramErrorStatus_v1_t>(), 104),
        (
            "nvmlRowRemapperHistogramValues_t",
            size_of::<sys::nvmlRowRemapperHistogramValues_t>(),
            20,
        ),
        ("nvmlTemperature_v1_t", size_of::<sys::nvmlTemperature_v1_t>(), 12),
        ("nvmlGpmSupport_t", size_of::<sys::nvmlGpmSupport_t>(), 8),
        ("nvmlGpmMetric_t", size_of::<sys::nvmlGpmMetric_t>(), 40),
    ] {
        assert_eq!(size, expected, "{name}");
    }
}

/// Words as published headers have them: `nvmlMemory_v2` is 0x02000028.
#[test]
fn version_words() {
    let word = |size: usize, version: u32| u32::try_from(size).unwrap() | (version << 24);
    assert_eq!(word(size_of::<sys::nvmlMemory_v2_t>(), 2), 0x0200_0028);
    assert_eq!(word(size_of::<sys::nvmlGpuFabricInfo_v2_t>(), 2), 0x0200_0024);
    assert_eq!(word(size_of::<sys::nvmlGpuFabricInfo_v3_t>(), 3), 0x0300_0028);
    assert_eq!(word(size_of::<sys::nvmlTemperature_v1_t>(), 1), 0x0100_000c);
    assert_eq!(word(size_of::<sys::nvmlPlatformInfo_v2_t>(), 2), 0x0200_002c);
}
