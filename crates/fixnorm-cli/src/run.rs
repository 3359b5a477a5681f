//! What the commands that train share: a recipe from flags, this program's provenance, signals.
//! Not here: the flags (`args`), what a command does with them.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fixnorm_train::{Devices, Provenance, Recipe, RecipeBuilder, RecipeError, Stop, TrainError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::args::RecipeArgs;

/// The recipe that is named, then the flags for single keys, then `--set`: later ones win.
pub(crate) fn recipe(
    mut builder: RecipeBuilder,
    args: &RecipeArgs,
    flags: impl FnOnce(RecipeBuilder) -> Result<RecipeBuilder, RecipeError>,
) -> Result<Recipe, TrainError> {
    if let Some(named) = &args.recipe {
        builder = builder.named_or_file(named)?;
    }
    builder = flags(builder)?;
    for assignment in &args.overrides {
        builder = builder.override_with(assignment)?;
    }
    for warning in builder.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(builder.build()?)
}

/// With model and data set, where they are given.
pub(crate) fn with_model_and_data(
    mut builder: RecipeBuilder,
    model: Option<&str>,
    data: Option<&str>,
) -> Result<RecipeBuilder, RecipeError> {
    for (key, value) in [("model", model), ("data", data)] {
        if let Some(value) = value {
            builder = builder.set(key, value)?;
        }
    }
    Ok(builder)
}

/// This program, on these devices.
pub(crate) fn made_by(device: &Devices) -> Provenance {
    Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("FIXNORM_COMMIT").to_owned(),
        device: device.resolved(),
    }
}

/// The first Ctrl-C or SIGTERM asks the run to stop, a second one ends the process at once.
pub(crate) fn stop_on_signals() -> anyhow::Result<Stop> {
    let stop = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone())?;
        flag::register(signal, again.clone())?;
        flag::register_usize(signal, stop.clone(), signal as usize)?;
    }
    Ok(stop)
}

/// The exit code of a program that a signal ended, as a shell reports it.
pub(crate) fn interrupted(stop: &Stop) -> ExitCode {
    ExitCode::from(u8::try_from(128 + stop.load(Ordering::Relaxed)).unwrap_or(1))
}
