//! A TUN device: IP packets as files. The only file of this crate with unsafe code, because two settings have no safe call.
//!
//! Every packet is preceded by the header of virtio-net, so that segments larger than a packet (TSO) and sums that are still to be
//! completed pass as they are, as between a machine and its network card:
//!
//! ```text
//! u8 flags │ u8 segmentation │ u16 header bytes │ u16 segment bytes │ u16 sum from │ u16 sum at │ IP packet
//! ```
//! Numbers in the machine's byte order. Sources: Documentation/networking/tuntap.rst, virtio 1.2 section 5.1.6.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// Bytes of the header of virtio-net.
pub(super) const HEADER: usize = 10;

const CLONE_DEVICE: &str = "/dev/net/tun";

mod system {
    use nix::libc;
    use nix::request_code_write;

    // Numbers of linux/if_tun.h: both were declared with the size of an int and take something else.
    nix::ioctl_readwrite_bad!(
        set_interface,
        request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        set_offload,
        request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
}

/// Creates the device `name` in the network namespace of the calling thread. Reads and writes do not block.
///
/// # Errors
/// Those of the system: no `/dev/net/tun`, no privilege, no segmentation offload.
pub(super) fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CLONE_DEVICE)
        .map_err(|error| io::Error::new(error.kind(), format!("{CLONE_DEVICE}: {error}")))?;
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?}: a name of a device has 1 to 15 bytes"),
        ));
    }
    // SAFETY: `ifreq` is plain data of the C library, an array of characters and a union of integers, pointers and addresses; zeros
    // are a value of all of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads one `ifreq` and writes the name back into it; `request` is one, lives through the call and is not used
    // otherwise meanwhile, nor is it read afterwards. The descriptor is open for as long as `file` is borrowed.
    unsafe { system::set_interface(file.as_raw_fd(), &raw mut request) }?;
    let offload = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    // SAFETY: TUNSETOFFLOAD takes its argument as a number and touches no memory of ours.
    unsafe { system::set_offload(file.as_raw_fd(), offload as libc::c_int) }?;
    Ok(file)
}
