//! Results on stdout, and which exit code an error means.

use std::io::Write;
use std::process::ExitCode;

use fixnorm_train::TrainError;
use fixnorm_train::tune::StoreError;
use serde::Serialize;

/// Prints one JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line on stdout. A reader that has gone, as `head` does, is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Aligns columns by their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Exit code of what the user can mend on the command line, in the environment or in the recipe.
pub(crate) const USAGE: u8 = 2;

/// [`USAGE`] for what the user can mend on the command line or in the recipe, 1 for what failed.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let usage = error.chain().filter_map(|cause| cause.downcast_ref::<TrainError>()).any(|error| {
        matches!(
            error,
            TrainError::Recipe(_)
                | TrainError::Model(_)
                | TrainError::Setup(_)
                | TrainError::NoDevice { .. }
                | TrainError::Unsupported { .. }
                | TrainError::UnknownArm { .. }
                | TrainError::RunExists(_)
                | TrainError::PlanChanged { .. }
                | TrainError::Knobs(_)
                | TrainError::Store(StoreError::Other { .. })
        ) || matches!(error, TrainError::Data(error) if error.is_usage())
    });
    ExitCode::from(if usage { USAGE } else { 1 })
}
