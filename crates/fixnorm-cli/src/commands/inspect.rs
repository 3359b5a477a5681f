//! `fixnorm inspect`.

use std::process::ExitCode;

use fixnorm_train::Bundle;
use fixnorm_train::analysis::inspect::{Inspection, Subject, inspect, measure};

use crate::args::{Format, InspectArgs};
use crate::commands::risk;
use crate::output::{self, UsageError};

pub(crate) fn run(args: &InspectArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = args.weights.as_deref().map(Bundle::read).transpose()?;
    let (model, device) = (args.model.as_deref(), &args.device.device);
    let subject = match (&bundle, model) {
        (Some(bundle), model) => Subject::Weights(bundle, model),
        (None, Some(model)) => Subject::Fresh(model),
        (None, None) => return Err(UsageError("name a model or weights").into()),
    };
    let mut found = inspect(subject, device)?;
    if let (Some(bundle), Some(data)) = (&bundle, &args.data) {
        let (risk, separation) = measure(bundle, model, data, args.pictures as usize, device)?;
        (found.risk, found.separation) = (Some(risk), Some(separation));
    }
    match format {
        Format::Json => output::json(&found)?,
        Format::Text => text(&found)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Inspection) -> anyhow::Result<()> {
    let head =
        ["parameter", "shape", "role", "scope", "norm", "effective lr", "angle (rad)", "deviation"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
    };
    for row in &found.parameters {
        rows.push(vec![
            row.path.clone(),
            row.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x"),
            row.role.name().to_owned(),
            row.scope.unwrap_or("-").to_owned(),
            number(row.norm, 6),
            number(row.effective_lr, 6),
            number(row.angle, 6),
            row.deviation.map_or_else(|| "-".to_owned(), |d| format!("{d:.1e}")),
        ]);
    }
    output::table(&rows)?;
    if let (Some(path), Some(alpha)) = (&found.head.path, found.head.alpha) {
        output::line(&format!("head {path}: alpha {alpha:.6}"))?;
    }
    let (Some(risk), Some(separation)) = (&found.risk, &found.separation) else { return Ok(()) };
    output::line("")?;
    risk::text(&[
        ("train ", &risk.train, &separation.train),
        ("val ", &risk.val, &separation.val),
    ])?;
    let gap = separation.gap;
    output::line(&format!(
        "gap: top-1 {:+.4}, loss {:+.4}, loss at the temperature of val {:+.4}",
        gap.top1, gap.loss, gap.loss_at_temperature
    ))
}
