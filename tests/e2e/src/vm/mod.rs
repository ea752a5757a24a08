//! `make e2e-vm`: a node as a virtual machine, in software emulation, with a kernel of its own and cgroup v2. What
//! namespaces of this host cannot show is shown here: that the disk boots, that the join goes its whole way on it, and
//! that the sandboxes of both units hold: devices, system calls, capabilities, read-only paths.
//!
//! [`parts`] finds QEMU, the kernel and the base of the disk; [`baked`] is the image that Packer made; [`disk`] makes the disk of it; [`guest`] runs the machine;
//! [`sandbox`] is the table of what each unit claims and what the probe in it must have found; [`story`] tells it all.
//!
//! What is simulated in it: nodeadm, kubelet and containerd are the lab's stand-ins, the GPUs nvml-sim's; AWS and
//! Kubernetes are the lab's, outside, reached over QEMU's user network, IMDS at its real address.

pub mod baked;
pub mod disk;
pub mod guest;
pub mod parts;
pub mod sandbox;
pub mod story;
