//! Every function is declared as `nvml.h` declares it: what does not fit does not compile.

use nvml_wrapper_sys::bindings::NvmlLib;

/// Accepts a function of ours where one of that type is loaded.
const fn same<F: Copy>(_theirs: Option<F>, _ours: F) {}

macro_rules! declared_alike {
    ($($module:ident { $($name:ident)* })*) => {
        $($(const _: fn(&NvmlLib) = |library| {
            same(library.$name.as_ref().ok().copied(), super::$module::$name);
        };)*)*
    };
}

declared_alike! {
    device {
        nvmlDeviceGetAccountingBufferSize
        nvmlDeviceGetAccountingMode
        nvmlDeviceGetApplicationsClock
        nvmlDeviceGetArchitecture
        nvmlDeviceGetBoardId
        nvmlDeviceGetBoardPartNumber
        nvmlDeviceGetBrand
        nvmlDeviceGetClock
        nvmlDeviceGetClockInfo
        nvmlDeviceGetComputeMode
        nvmlDeviceGetCpuAffinity
        nvmlDeviceGetCudaComputeCapability
        nvmlDeviceGetCurrentClocksEventReasons
        nvmlDeviceGetCurrentClocksThrottleReasons
        nvmlDeviceGetDecoderUtilization
        nvmlDeviceGetDefaultApplicationsClock
        nvmlDeviceGetDisplayActive
        nvmlDeviceGetDisplayMode
        nvmlDeviceGetEncoderUtilization
        nvmlDeviceGetEnforcedPowerLimit
        nvmlDeviceGetFanSpeed
        nvmlDeviceGetGspFirmwareMode
        nvmlDeviceGetGspFirmwareVersion
        nvmlDeviceGetIndex
        nvmlDeviceGetInforomImageVersion
        nvmlDeviceGetInforomVersion
        nvmlDeviceGetIrqNum
        nvmlDeviceGetJpgUtilization
        nvmlDeviceGetMarginTemperature
        nvmlDeviceGetMaxClockInfo
        nvmlDeviceGetMaxCustomerBoostClock
        nvmlDeviceGetMinorNumber
        nvmlDeviceGetModuleId
        nvmlDeviceGetMultiGpuBoard
        nvmlDeviceGetName
        nvmlDeviceGetNumFans
        nvmlDeviceGetNumGpuCores
        nvmlDeviceGetNumaNodeId
        nvmlDeviceGetOfaUtilization
        nvmlDeviceGetPerformanceState
        nvmlDeviceGetPersistenceMode
        nvmlDeviceGetPowerManagementDefaultLimit
        nvmlDeviceGetPowerManagementLimit
        nvmlDeviceGetPowerManagementLimitConstraints
        nvmlDeviceGetPowerManagementMode
        nvmlDeviceGetPowerState
        nvmlDeviceGetPowerUsage
        nvmlDeviceGetSerial
        nvmlDeviceGetSupportedClocksEventReasons
        nvmlDeviceGetSupportedClocksThrottleReasons
        nvmlDeviceGetSupportedGraphicsClocks
        nvmlDeviceGetSupportedMemoryClocks
        nvmlDeviceGetTemperature
        nvmlDeviceGetTemperatureThreshold
        nvmlDeviceGetTemperatureV
        nvmlDeviceGetTotalEnergyConsumption
        nvmlDeviceGetUUID
        nvmlDeviceGetUtilizationRates
        nvmlDeviceGetVbiosVersion
        nvmlDeviceGetViolationStatus
        nvmlDeviceGetVirtualizationMode
    }
    events {
        nvmlDeviceGetSupportedEventTypes
        nvmlDeviceRegisterEvents
        nvmlEventSetCreate
        nvmlEventSetFree
        nvmlEventSetWait_v2
    }
    fabric {
        nvmlDeviceGetGpuFabricInfo
        nvmlDeviceGetGpuFabricInfoV
        nvmlDeviceGetPlatformInfo
    }
    fields {
        nvmlDeviceGetFieldValues
    }
    gpm {
        nvmlGpmMetricsGet
        nvmlGpmMigSampleGet
        nvmlGpmQueryDeviceSupport
        nvmlGpmSampleAlloc
        nvmlGpmSampleFree
        nvmlGpmSampleGet
    }
    link {
        nvmlDeviceGetCurrPcieLinkGeneration
        nvmlDeviceGetCurrPcieLinkWidth
        nvmlDeviceGetGpuMaxPcieLinkGeneration
        nvmlDeviceGetMaxPcieLinkGeneration
        nvmlDeviceGetMaxPcieLinkWidth
        nvmlDeviceGetNvLinkCapability
        nvmlDeviceGetNvLinkErrorCounter
        nvmlDeviceGetNvLinkRemoteDeviceType
        nvmlDeviceGetNvLinkRemotePciInfo_v2
        nvmlDeviceGetNvLinkState
        nvmlDeviceGetNvLinkVersion
        nvmlDeviceGetP2PStatus
        nvmlDeviceGetPciInfoExt
        nvmlDeviceGetPciInfo_v3
        nvmlDeviceGetPcieReplayCounter
        nvmlDeviceGetPcieSpeed
        nvmlDeviceGetPcieThroughput
        nvmlDeviceGetTopologyCommonAncestor
        nvmlDeviceOnSameBoard
        nvmlDeviceValidateInforom
    }
    memory {
        nvmlDeviceGetBAR1MemoryInfo
        nvmlDeviceGetDefaultEccMode
        nvmlDeviceGetEccMode
        nvmlDeviceGetMemoryBusWidth
        nvmlDeviceGetMemoryErrorCounter
        nvmlDeviceGetMemoryInfo
        nvmlDeviceGetMemoryInfo_v2
        nvmlDeviceGetRemappedRows
        nvmlDeviceGetRetiredPages
        nvmlDeviceGetRetiredPagesPendingStatus
        nvmlDeviceGetRetiredPages_v2
        nvmlDeviceGetRowRemapperHistogram
        nvmlDeviceGetSramEccErrorStatus
        nvmlDeviceGetTotalEccErrors
    }
    mig {
        nvmlDeviceGetAttributes_v2
        nvmlDeviceGetComputeInstanceId
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle
        nvmlDeviceGetGpuInstanceId
        nvmlDeviceGetMaxMigDeviceCount
        nvmlDeviceGetMigDeviceHandleByIndex
        nvmlDeviceGetMigMode
        nvmlDeviceIsMigDeviceHandle
    }
    processes {
        nvmlDeviceGetComputeRunningProcesses_v3
        nvmlDeviceGetGraphicsRunningProcesses_v3
        nvmlDeviceGetMPSComputeRunningProcesses_v3
        nvmlDeviceGetProcessUtilization
    }
    system {
        nvmlDeviceGetCount_v2
        nvmlDeviceGetHandleByIndex_v2
        nvmlDeviceGetHandleByPciBusId_v2
        nvmlDeviceGetHandleBySerial
        nvmlDeviceGetHandleByUUID
        nvmlErrorString
        nvmlGetExcludedDeviceCount
        nvmlInitWithFlags
        nvmlInit_v2
        nvmlShutdown
        nvmlSystemGetCudaDriverVersion_v2
        nvmlSystemGetDriverVersion
        nvmlSystemGetNVMLVersion
        nvmlSystemGetProcessName
        nvmlUnitGetCount
    }
}
