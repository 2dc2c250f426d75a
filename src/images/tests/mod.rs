//! Tests of whole imports, with a store of temporary directories.

mod archives;
mod damage;
mod kinds;
mod store;
mod trees;
mod tricks;
