//! All integration tests of the crate, in one binary: each binary links Burn again.

mod checkpoints;
mod gradients;
mod models;
