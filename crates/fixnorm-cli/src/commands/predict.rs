//! `fixnorm predict`.

use std::process::ExitCode;

use fixnorm_train::Bundle;

use crate::args::{Format, PredictArgs};
use crate::output;

pub(crate) fn run(args: &PredictArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::read(&args.weights)?;
    let predictions =
        bundle.predict(args.model.as_deref(), &args.files, args.top, args.logits, &args.device)?;
    if format == Format::Json {
        output::json(&predictions)?;
        return Ok(ExitCode::SUCCESS);
    }
    for prediction in &predictions {
        let guesses = prediction.top.iter();
        let guesses: Vec<_> =
            guesses.map(|guess| format!("{} {:.3}", guess.name, guess.probability)).collect();
        output::line(&format!("{}: {}", prediction.file.display(), guesses.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
