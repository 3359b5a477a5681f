//! The environment variables that choose how kernels run. Libraries read none of them: what they choose is applied
//! here, once, before any kernel runs.

use std::env::{self, VarError};

use anyhow::Context;
use fixnorm_kernels::Isa;

/// Applies `FIXNORM_ISA`, the instruction set of the CPU kernels, if it is set.
///
/// # Errors
/// A name that this processor has no instruction set for; the message lists those that it has.
pub(crate) fn apply() -> anyhow::Result<()> {
    let name = match env::var("FIXNORM_ISA") {
        Ok(name) => name,
        Err(VarError::NotPresent) => return Ok(()),
        Err(VarError::NotUnicode(name)) => name.to_string_lossy().into_owned(),
    };
    Isa::from_name(&name).and_then(Isa::set_current).context("environment variable FIXNORM_ISA")
}
