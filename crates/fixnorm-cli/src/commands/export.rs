//! `fixnorm export`.

use std::process::ExitCode;

use fixnorm_train::Bundle;
use fixnorm_train::files::path_text;
use fixnorm_train::weights::export::{check_out, export};
use serde_json::json;

use crate::args::{ExportArgs, Format};
use crate::output;

pub(crate) fn run(args: &ExportArgs, format: Format) -> anyhow::Result<ExitCode> {
    let (kind, out) = &args.out;
    check_out(*kind, out)?;
    let bundle = Bundle::read(&args.weights.weights)?;
    let notes = export(&bundle, args.weights.model.as_deref(), *kind, out, &args.device.device)?;
    for note in notes {
        eprintln!("{note}");
    }
    match format {
        Format::Json => output::json(&json!({"path": path_text(out), "format": kind.to_string()}))?,
        Format::Text => output::line(&format!("wrote {}", out.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}
