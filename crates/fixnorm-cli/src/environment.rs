//! The environment variables that choose how kernels run. Libraries read none of them: what they choose is applied
//! here, once, before any kernel runs.

use std::env::{self, VarError};

use anyhow::Context;
use fixnorm_kernels::Isa;
use fixnorm_train::{BlockExecution, ProductTuning, choose_kernels};

/// Applies `FIXNORM_ISA`, the instruction set of the CPU kernels, `FIXNORM_BLOCKS`, the operations that blocks run on, and
/// `FIXNORM_TUNE`, the choice of a GPU's kernels for products, where they are set.
///
/// # Errors
/// A name that is not one of the values; the message lists them.
pub(crate) fn apply() -> anyhow::Result<()> {
    if let Some(name) = variable("FIXNORM_ISA") {
        let set = Isa::from_name(&name).and_then(Isa::set_current);
        set.context("environment variable FIXNORM_ISA")?;
    }
    if let Some(name) = variable("FIXNORM_BLOCKS") {
        let execution: BlockExecution =
            name.parse().context("environment variable FIXNORM_BLOCKS")?;
        execution.set_default().expect("no model is built yet");
    }
    let tuning: ProductTuning = match variable("FIXNORM_TUNE") {
        Some(text) => text.parse().context("environment variable FIXNORM_TUNE")?,
        None => ProductTuning::default(),
    };
    choose_kernels(tuning).expect("no product ran yet");
    Ok(())
}

fn variable(key: &str) -> Option<String> {
    match env::var(key) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
    }
}
