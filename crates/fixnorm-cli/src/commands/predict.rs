//! `fixnorm predict`.

use std::process::ExitCode;

use fixnorm_train::files::path_text;
use fixnorm_train::weights::predict::{Answer, Request, predict};
use fixnorm_train::{Bundle, TrainError, image_files};

use crate::args::{Format, PredictArgs};
use crate::output;

pub(crate) fn run(args: &PredictArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::read(&args.weights.weights)?;
    let files = image_files(&args.files).map_err(TrainError::from)?;
    let answers = predict(
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
        Format::Json => output::json(&answers)?,
        Format::Text => answers.iter().try_for_each(text)?,
    }
    let failed = |answer: &&Answer| matches!(answer, Answer::Failed(_));
    let failures = answers.iter().filter(failed).count();
    for answer in &answers {
        if let Answer::Failed(failed) = answer {
            eprintln!("error: {}", failed.error);
        }
    }
    if failures == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if files.len() > 1 {
        eprintln!("error: {failures} of {} images have no prediction", files.len());
    }
    Ok(ExitCode::FAILURE)
}

fn text(answer: &Answer) -> anyhow::Result<()> {
    let Answer::Predicted(prediction) = answer else { return Ok(()) };
    let guesses = prediction.top.iter();
    let guesses: Vec<_> =
        guesses.map(|guess| format!("{:.3} {}", guess.probability, guess.name)).collect();
    output::line(&format!("{}: {}", path_text(&prediction.file), guesses.join("; ")))
}
