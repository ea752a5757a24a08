//! A device's links: to the host over PCIe, to other devices over NVLink.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlEnableState_t, nvmlPciInfo_t, nvmlPciInfoExt_v1_t, nvmlReturn_t};

use super::device::enabled;
use super::shapes::{choices, getters, versioned};
use super::{code, fill, put};
use crate::session::{INVALID_ARGUMENT, NOT_SUPPORTED, on_device, uuid_of};
use crate::state::{Gpu, Nvlink, State};

const VOLTA: c_uint = 5;
const AMPERE: c_uint = 7;
const HOPPER: c_uint = 9;
/// Subsystem of NVIDIA's own boards.
const SUBSYSTEM: c_uint = 0x16c1_10de;
/// 3D controller: class and what kind of it.
const CLASS: (c_uint, c_uint) = (0x03, 0x02);

getters! {
    nvmlDeviceGetPciInfo_v3 -> nvmlPciInfo_t = |gpu| pci_info(gpu);
    nvmlDeviceGetCurrPcieLinkGeneration -> c_uint = |gpu| Ok(gpu.pcie.generation.0);
    nvmlDeviceGetMaxPcieLinkGeneration -> c_uint = |gpu| Ok(gpu.pcie.generation.1);
    nvmlDeviceGetGpuMaxPcieLinkGeneration -> c_uint = |gpu| Ok(gpu.pcie.generation.1);
    nvmlDeviceGetCurrPcieLinkWidth -> c_uint = |gpu| Ok(gpu.pcie.width.0);
    nvmlDeviceGetMaxPcieLinkWidth -> c_uint = |gpu| Ok(gpu.pcie.width.1);
    nvmlDeviceGetPcieReplayCounter -> c_uint = |gpu| Ok(gpu.pcie.replays);
    nvmlDeviceGetPcieSpeed -> c_uint = |gpu| Ok(transfers(gpu.pcie.generation.0));
}

/// Megatransfers per second and lane.
const fn transfers(generation: u32) -> c_uint {
    match generation {
        1 => 2_500,
        2 => 5_000,
        3 => 8_000,
        4 => 16_000,
        5 => 32_000,
        _ => 64_000,
    }
}

fn pci_info(gpu: &Gpu) -> Result<nvmlPciInfo_t, nvmlReturn_t> {
    let [domain, bus, device] = numbers(&gpu.pci)?;
    let mut info = nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device,
        pciDeviceId: gpu.pci_device_id,
        pciSubSystemId: SUBSYSTEM,
        busId: [0; 32],
    };
    fill(&mut info.busIdLegacy, &gpu.pci.to_ascii_uppercase());
    fill(&mut info.busId, &format!("0000{}", gpu.pci.to_ascii_uppercase()));
    Ok(info)
}

fn numbers(address: &str) -> Result<[c_uint; 3], nvmlReturn_t> {
    let unknown = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
    let number = |text: &str| c_uint::from_str_radix(text, 16).map_err(|_| unknown);
    let parts: Vec<&str> = address.split([':', '.']).collect();
    let [domain, bus, slot, _] = parts.as_slice() else { return Err(unknown) };
    Ok([number(domain)?, number(bus)?, number(slot)?])
}

versioned! {
    nvmlDeviceGetPciInfoExt -> nvmlPciInfoExt_v1_t, 1 = |gpu, version| {
        let [domain, bus, device] = numbers(&gpu.pci)?;
        let mut info = nvmlPciInfoExt_v1_t {
            version,
            domain,
            bus,
            device,
            pciDeviceId: gpu.pci_device_id,
            pciSubSystemId: SUBSYSTEM,
            baseClass: CLASS.0,
            subClass: CLASS.1,
            busId: [0; 32],
        };
        fill(&mut info.busId, &format!("0000{}", gpu.pci.to_ascii_uppercase()));
        Ok(info)
    };
}

choices! {
    // KB/s in the last 20 ms: sent, received.
    nvmlDeviceGetPcieThroughput(c_uint) -> c_uint = |gpu, direction| match direction {
        0 | 1 => Ok(gpu.utilization.gpu * 4096),
        _ => Err(INVALID_ARGUMENT),
    };
    nvmlDeviceGetNvLinkState(c_uint) -> nvmlEnableState_t = |gpu, link| {
        let nvlink = of_link(gpu, link)?;
        Ok(enabled(nvlink.down & (1 << link) == 0))
    };
    nvmlDeviceGetNvLinkVersion(c_uint) -> c_uint = |gpu, link| {
        of_link(gpu, link).map(|_| nvlink_version(gpu))
    };
    // A switch where there are some, else another GPU.
    nvmlDeviceGetNvLinkRemoteDeviceType(c_uint) -> c_uint = |gpu, link| {
        of_link(gpu, link).map(|_| if gpu.module_id.is_some() { 2 } else { 0 })
    };
    nvmlDeviceGetNvLinkRemotePciInfo_v2(c_uint) -> nvmlPciInfo_t = |gpu, link| {
        of_link(gpu, link)?;
        pci_info(gpu).map(|mut info| {
            info.pciDeviceId = 0x22a3_10de;
            fill(&mut info.busIdLegacy, "0000:D1:00.0");
            fill(&mut info.busId, "00000000:D1:00.0");
            info
        })
    };
}

/// The NVLinks, if this is one of them.
pub(super) fn of_link(gpu: &Gpu, link: c_uint) -> Result<Nvlink, nvmlReturn_t> {
    let nvlink = gpu.nvlink.ok_or(NOT_SUPPORTED)?;
    if link < nvlink.links { Ok(nvlink) } else { Err(INVALID_ARGUMENT) }
}

/// NVML's number of the generation: 2.2, 3.0, 4.0, 5.0.
pub(super) const fn nvlink_version(gpu: &Gpu) -> c_uint {
    match gpu.architecture {
        0..=VOLTA => 2,
        6..=AMPERE => 5,
        8..=HOPPER => 6,
        _ => 7,
    }
}

/// MB/s of one link in one direction.
pub(super) const fn nvlink_speed(gpu: &Gpu) -> c_uint {
    match gpu.architecture {
        0..=VOLTA => 25_781,
        6..=AMPERE => 25_000,
        8..=HOPPER => 26_562,
        _ => 53_125,
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetNvLinkCapability(
    device: nvmlDevice_t,
    link: c_uint,
    capability: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetNvLinkCapability", device, |gpu, _| {
        of_link(gpu, link)?;
        // Peer to peer, system memory, atomics of both; no bridge, valid.
        Ok(c_uint::from(matches!(capability, 0..=3 | 5)))
    });
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_device("nvmlDeviceGetNvLinkErrorCounter", device, |gpu, _| {
        let nvlink = of_link(gpu, link)?;
        let errors = nvlink.errors;
        // All of them are the first link's.
        let first = u64::from(link == 0);
        match counter {
            0 => Ok(errors.replay * first),
            1 => Ok(errors.recovery * first),
            2 => Ok(errors.crc_flit * first),
            3 => Ok(errors.crc_data * first),
            4 => Ok(0),
            _ => Err(INVALID_ARGUMENT),
        }
    });
    // SAFETY: the caller passes a pointer to an unsigned long long, as nvml.h demands.
    unsafe { put(out, answer) }
}

/// The other device of a pair, asked for by its handle.
fn pair<T>(
    call: &str,
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    answer: impl FnOnce(&Gpu, &Gpu) -> T,
) -> Result<T, nvmlReturn_t> {
    on_device(call, first, |gpu, state| {
        let uuid = uuid_of(second).ok_or(INVALID_ARGUMENT)?;
        let other = state.gpus.iter().find(|gpu| gpu.uuid == uuid).ok_or(INVALID_ARGUMENT)?;
        Ok(answer(gpu, other))
    })
}

/// How far up the tree two devices meet: at the host bridge, here.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    const SAME: c_uint = 0;
    const HOST_BRIDGE: c_uint = 30;
    let answer = pair("nvmlDeviceGetTopologyCommonAncestor", first, second, |one, other| {
        if one.uuid == other.uuid { SAME } else { HOST_BRIDGE }
    });
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, answer) }
}

/// Whether two devices reach each other: 0 says yes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    _index: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    const OK: c_uint = 0;
    const CHIPSET: c_uint = 1;
    let answer = pair("nvmlDeviceGetP2PStatus", first, second, |one, _| {
        if one.nvlink.is_some() { OK } else { CHIPSET }
    });
    // SAFETY: the caller passes a pointer to an unsigned int, as nvml.h demands.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nvmlDeviceOnSameBoard(
    first: nvmlDevice_t,
    second: nvmlDevice_t,
    out: *mut c_int,
) -> nvmlReturn_t {
    let answer = pair("nvmlDeviceOnSameBoard", first, second, |one, other| {
        c_int::from(one.uuid == other.uuid)
    });
    // SAFETY: the caller passes a pointer to an int, as nvml.h demands.
    unsafe { put(out, answer) }
}

/// What the fabric wants to know before a GPU is taken away: nothing here.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceValidateInforom(device: nvmlDevice_t) -> nvmlReturn_t {
    code(on_device("nvmlDeviceValidateInforom", device, |_: &Gpu, _: &State| Ok(())))
}
