//! One file a command: from its arguments to its output.

pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod dissect;
pub(crate) mod eval;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod migrate;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod recipes;
pub(crate) mod report;
pub(crate) mod risk;
pub(crate) mod study;
pub(crate) mod train;
pub(crate) mod tune;
