//! CPU kernels of fixnorm on plain slices. Knows no tensor library.
//!
//! | module | computes |
//! |---|---|
//! | [`update`] | one optimizer step of one weight, with its norm controlled, in two passes over memory |

pub mod update;
