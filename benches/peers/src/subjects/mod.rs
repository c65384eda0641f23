//! Every peer, one file each; this file only lists them.

mod commitlog;
mod fjall;
mod heed;
mod mrecordlog;
mod okaywal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod rusqlite;
pub mod stonelog;
#[cfg(test)]
mod tests;

use crate::subject::Kind;

/// All kinds that this build has, Stonelog first.
pub fn all() -> Vec<&'static dyn Kind> {
    vec![
        &stonelog::Stonelog,
        &raft_engine::RaftEngine,
        &okaywal::OkayWal,
        &commitlog::Commitlog,
        &mrecordlog::Mrecordlog,
        &redb::Redb,
        &fjall::Fjall,
        &heed::Heed { write_map: false },
        &heed::Heed { write_map: true },
        &rusqlite::Rusqlite,
        #[cfg(feature = "rocksdb")]
        &rocksdb::RocksDb,
    ]
}
