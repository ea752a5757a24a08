"""What NVIDIA's Python binding reads of each GPU, as JSON: the test compares it with the state."""

import json
import sys

import pynvml as nvml

RECOVERY_ACTION = 230


def attempt(call, *arguments):
    """The value, or the name of NVML's error."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        return str(error)


def read(index):
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
    fields = nvml.nvmlDeviceGetFieldValues(gpu, [RECOVERY_ACTION])
    fabric = nvml.c_nvmlGpuFabricInfoV_t()
    has_fabric = attempt(nvml.nvmlDeviceGetGpuFabricInfoV, gpu, nvml.byref(fabric))
    parts = []
    for part in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            parts.append(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, part)))
        except nvml.NVMLError:
            pass
    return {
        "name": nvml.nvmlDeviceGetName(gpu),
        "uuid": nvml.nvmlDeviceGetUUID(gpu),
        "serial": nvml.nvmlDeviceGetSerial(gpu),
        "pci": nvml.nvmlDeviceGetPciInfo(gpu).busId,
        "memoryMib": memory.total >> 20,
        "memoryUsedMib": memory.used >> 20,
        "temperature": nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "temperatureV": nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU),
        "powerLimit": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu),
        "persistence": nvml.nvmlDeviceGetPersistenceMode(gpu),
        "eccUncorrected": attempt(
            nvml.nvmlDeviceGetTotalEccErrors,
            gpu,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        ),
        "remappedRows": attempt(nvml.nvmlDeviceGetRemappedRows, gpu),
        "recoveryAction": fields[0].value.uiVal if fields[0].nvmlReturn == 0 else None,
        "fabricState": fabric.state if has_fabric == nvml.NVML_SUCCESS else None,
        "architecture": nvml.nvmlDeviceGetArchitecture(gpu),
        "capability": nvml.nvmlDeviceGetCudaComputeCapability(gpu),
        "processes": [process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)],
        "parts": parts,
    }


def main():
    nvml.nvmlInit()
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        gpus.append(attempt(read, index))
    driver = nvml.nvmlSystemGetDriverVersion()
    json.dump({"driver": driver, "gpus": gpus}, sys.stdout)


main()
