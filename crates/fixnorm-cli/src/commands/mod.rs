//! One file a command: from its arguments to its output.

pub(crate) mod bench;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod recipes;
pub(crate) mod train;
pub(crate) mod tune;
