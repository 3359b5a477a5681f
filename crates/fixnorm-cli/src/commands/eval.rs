//! `fixnorm eval`.

use std::process::ExitCode;

use fixnorm_train::Bundle;
use fixnorm_train::weights::Fit;
use fixnorm_train::weights::bundle::{EvalOptions, Evaluated};
use serde_json::json;

use crate::args::{EvalArgs, Format};
use crate::output;
use crate::progress::{self, understood};

pub(crate) fn run(args: &EvalArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::read(&args.weights.weights)?;
    let fit = if args.allow_partial { Fit::Partial } else { Fit::Exact };
    let model = args.weights.model.as_deref();
    let options = EvalOptions {
        split: args.split,
        load: progress::loading(),
        flip: args.flip,
        max_bad: args.max_bad,
    };
    let done = bundle.evaluate(model, &args.data, fit, options, &args.device.device)?;
    let Evaluated { evaluation: val, left, split, summary } = done;
    for line in understood(&summary) {
        eprintln!("{line}");
    }
    for bad in &val.bad {
        eprintln!("skipped {}: {}", bad.name.display(), bad.reason);
    }
    if !left.is_empty() {
        eprintln!("not all weights fit; the missing ones are random:{left}");
    }
    match format {
        Format::Json => output::json(&json!({
            "val_top1": val.top1,
            "val_top5": val.top5,
            "val_loss": val.loss,
            "count": val.count,
            "skipped": val.skipped,
            "split": split,
            "classes": summary.classes.len(),
        }))?,
        // Scripts read this line: the word stays.
        Format::Text => output::line(&format!(
            "val top-1 {:.4}  top-5 {:.4}  loss {:.4}  on {} pictures",
            val.top1, val.top5, val.loss, val.count
        ))?,
    }
    if val.loss.is_finite() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: the loss is {}: the model's logits are not finite", val.loss);
    Ok(ExitCode::FAILURE)
}
