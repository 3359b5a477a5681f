//! `fixnorm predict`.

use std::process::ExitCode;

use fixnorm_train::weights::predict::{Request, predict};
use fixnorm_train::{Bundle, TrainError, image_files};

use crate::args::{Format, PredictArgs};
use crate::output;

pub(crate) fn run(args: &PredictArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::read(&args.weights.weights)?;
    let files = image_files(&args.files).map_err(TrainError::from)?;
    let done = predict(
        &bundle,
        &Request {
            model: args.weights.model.as_deref(),
            files: &files,
            top: args.top,
            logits: args.logits,
            batch: args.batch as usize,
            device: &args.device.device,
        },
    )?;
    match format {
        Format::Json => output::json(&done.predictions)?,
        Format::Text => {
            for prediction in &done.predictions {
                let guesses = prediction.top.iter();
                let guesses: Vec<_> = guesses
                    .map(|guess| format!("{:.3} {}", guess.probability, guess.name))
                    .collect();
                output::line(&format!("{}: {}", prediction.file.display(), guesses.join("; ")))?;
            }
        }
    }
    if done.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for error in &done.failed {
        eprintln!("error: {error}");
    }
    if files.len() > 1 {
        eprintln!("error: {} of {} images could not be read", done.failed.len(), files.len());
    }
    Ok(ExitCode::FAILURE)
}
