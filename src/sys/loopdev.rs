//! Loop devices: loop(4), Linux `include/uapi/linux/loop.h`.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

/// An attached loop device, held open. It is attached with autoclear: when the last holder (this, or the device-mapper
/// table over it) lets go, the kernel detaches it.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
}

/// Whether I/O goes around the page cache of the backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// Through the page cache.
    Buffered,
    /// Around it, when the file system can; the kernel falls back quietly.
    Direct,
}

impl LoopDevice {
    /// Attaches `backing` to a free loop device with logical blocks of `block_size` bytes.
    pub fn attach(backing: &File, io: Io, block_size: u32) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let backing = u32::try_from(backing.as_raw_fd()).expect("an open descriptor is not negative");
        // Somebody else may take the free device between the two calls: then there is another.
        for _ in 0..64 {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { raw::get_free(control.as_raw_fd()) }?;
            let file = OpenOptions::new().read(true).write(true).open(format!("/dev/loop{number}"))?;
            match configure(&file, &Config::new(backing, io, block_size)) {
                Err(nix::errno::Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(Self { file }),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// The device number, in `stat` encoding.
    pub fn device(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.rdev())
    }
}

/// Makes loop device `number` as large as its backing file is now.
pub fn follow_size(number: u32) -> io::Result<()> {
    let file = File::open(format!("/dev/loop{number}"))?;
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { raw::set_capacity(file.as_raw_fd()) }.map(drop).map_err(io::Error::from)
}

/// The device and inode of the file behind loop device `number`; None when nothing is attached.
pub fn backing_of(number: u32) -> io::Result<Option<(u64, u64)>> {
    let file = match File::open(format!("/dev/loop{number}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut info = LoopInfo::default();
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, whose layout `LoopInfo` has, to a live local.
    match unsafe { raw::get_status(file.as_fd().as_raw_fd(), &raw mut info) } {
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some((info.device, info.inode))),
    }
}

/// The numbers of all attached loop devices whose backing file is `file`, whatever its path is now.
pub fn attached_to(file: &File) -> io::Result<Vec<u32>> {
    let meta = file.metadata()?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        let Some(number) = number else { continue };
        if entry.path().join("loop").exists() && backing_of(number)? == Some((meta.dev(), meta.ino())) {
            found.push(number);
        }
    }
    Ok(found)
}

fn configure(device: &File, config: &Config) -> nix::Result<libc::c_int> {
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout `Config` has, from a live reference.
    unsafe { raw::configure(device.as_raw_fd(), std::ptr::from_ref(config)) }
}

mod raw {
    //! LOOP_CTL_GET_FREE, LOOP_SET_CAPACITY, LOOP_CONFIGURE, LOOP_GET_STATUS64.
    use super::{Config, LoopInfo};
    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_none_bad!(set_capacity, 0x4C07);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, Config);
    nix::ioctl_read_bad!(get_status, 0x4C05, LoopInfo);
}

const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Default for LoopInfo {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<Config>() == 304);

impl Config {
    fn new(fd: u32, io: Io, block_size: u32) -> Self {
        let direct = match io {
            Io::Buffered => 0,
            Io::Direct => FLAG_DIRECT_IO,
        };
        let info = LoopInfo { flags: FLAG_AUTOCLEAR | direct, ..LoopInfo::default() };
        Self { fd, block_size, info, reserved: [0; 8] }
    }
}
