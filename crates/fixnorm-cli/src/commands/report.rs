//! `fixnorm report`.

use std::process::ExitCode;

use fixnorm_train::report;
use serde_json::json;

use crate::args::{Format, ReportArgs};
use crate::output;

pub(crate) fn run(args: &ReportArgs, format: Format) -> anyhow::Result<ExitCode> {
    report::write(&args.sources, &args.out, args.plots.as_deref())?;
    match format {
        Format::Json => output::json(&json!({"path": args.out}))?,
        Format::Text => output::line(&args.out.display().to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}
