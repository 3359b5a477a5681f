//! `fixnorm report`.

use std::process::ExitCode;

use fixnorm_train::report;
use serde_json::json;

use crate::args::{Format, ReportArgs};
use crate::output;

pub(crate) fn run(args: &ReportArgs, format: Format) -> anyhow::Result<ExitCode> {
    report::write(&args.sources, &args.out, args.plots.as_deref())?;
    // As text: JSON has no paths that are not UTF-8.
    let path = args.out.display().to_string();
    match format {
        Format::Json => output::json(&json!({"path": path}))?,
        Format::Text => output::line(&path)?,
    }
    Ok(ExitCode::SUCCESS)
}
