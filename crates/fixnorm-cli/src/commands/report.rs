//! `fixnorm report`.

use std::process::ExitCode;

use fixnorm_train::files::path_text;
use fixnorm_train::report;
use serde_json::json;

use crate::args::{Format, ReportArgs};
use crate::output;

pub(crate) fn run(args: &ReportArgs, format: Format) -> anyhow::Result<ExitCode> {
    report::write(&args.sources, &args.out, args.plots.as_deref())?;
    let path = path_text(&args.out);
    match format {
        Format::Json => output::json(&json!({"path": path}))?,
        Format::Text => output::line(&path)?,
    }
    Ok(ExitCode::SUCCESS)
}
