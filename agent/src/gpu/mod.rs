//! GPUs: facts from PCI, the driver's files and NVML, and what they mean.
