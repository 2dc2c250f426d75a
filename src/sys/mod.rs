//! Kernel calls: the only floor with `unsafe`. One file per kernel facility; no domain words.

pub mod openat2;
