//! Growing a mounted xfs: Linux `fs/xfs/libxfs/xfs_fs.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Grows the file system that `directory` (not opened with `O_PATH`) is on to `bytes`, as far as whole blocks go; no
/// change when it has as many or more. The device must be that large already. Needs `CAP_SYS_ADMIN`.
pub fn grow(directory: impl AsFd, bytes: u64) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let mut geometry = Geometry::default();
    // SAFETY: XFS_IOC_FSGEOMETRY_V1 writes one `struct xfs_fsop_geom_v1`, whose layout `Geometry` has, to a live local.
    unsafe { raw::geometry(fd, &raw mut geometry) }?;
    let blocks = bytes / u64::from(geometry.block_size.max(1));
    if blocks <= geometry.data_blocks {
        return Ok(());
    }
    // The share of inodes is set as well: it stays.
    let request = Growth { blocks, inode_percent: geometry.inode_percent, padding: 0 };
    // SAFETY: XFS_IOC_FSGROWFSDATA reads one `struct xfs_growfs_data`, whose layout `Growth` has, from a live local.
    unsafe { raw::grow_data(fd, &raw const request) }.map(drop).map_err(io::Error::from)
}

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Default)]
struct Geometry {
    block_size: u32,
    rt_extent_size: u32,
    group_blocks: u32,
    groups: u32,
    log_blocks: u32,
    sector_size: u32,
    inode_size: u32,
    inode_percent: u32,
    data_blocks: u64,
    rt_blocks: u64,
    rt_extents: u64,
    log_start: u64,
    uuid: [u8; 16],
    stripe_unit: u32,
    stripe_width: u32,
    version: i32,
    flags: u32,
    log_sector_size: u32,
    rt_sector_size: u32,
    directory_block_size: u32,
    padding: u32,
}

/// `struct xfs_growfs_data`.
#[repr(C)]
struct Growth {
    blocks: u64,
    inode_percent: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Geometry>() == 112 && size_of::<Growth>() == 16);

mod raw {
    //! XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA.
    use super::{Geometry, Growth};
    nix::ioctl_read!(geometry, b'X', 100, Geometry);
    nix::ioctl_write_ptr!(grow_data, b'X', 110, Growth);
}
