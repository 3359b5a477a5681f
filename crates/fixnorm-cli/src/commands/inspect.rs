//! `fixnorm inspect`.

use std::process::ExitCode;

use fixnorm_train::Bundle;
use fixnorm_train::analysis::inspect::{Inspection, Risks, Subject, inspect, risks};

use crate::args::{Format, InspectArgs};
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
        found.risk = Some(risks(bundle, model, data, args.pictures as usize, device)?);
    }
    match format {
        Format::Json => output::json(&found)?,
        Format::Text => text(&found)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Inspection) -> anyhow::Result<()> {
    let head = ["parameter", "shape", "role", "scope", "norm", "effective lr", "deviation"];
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
            row.deviation.map_or_else(|| "-".to_owned(), |d| format!("{d:.1e}")),
        ]);
    }
    output::table(&rows)?;
    if let (Some(path), Some(alpha)) = (&found.head.path, found.head.alpha) {
        output::line(&format!("head {path}: alpha {alpha:.6}"))?;
    }
    match &found.risk {
        Some(risks) => risk_text(risks),
        None => Ok(()),
    }
}

fn risk_text(risks: &Risks) -> anyhow::Result<()> {
    let head = ["images", "tau", "risk", "standard error", "lower", "upper"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (part, risk) in [("train", &risks.train), ("val", &risks.val)] {
        for at in &risk.risk {
            let numbers = [at.cbr, at.standard_error, at.lower, at.upper];
            let mut row = vec![format!("{part} {}", risk.count), at.tau.to_string()];
            row.extend(numbers.map(|number| format!("{number:.5}")));
            rows.push(row);
        }
    }
    output::line("")?;
    output::table(&rows)?;
    for (part, risk) in [("train", &risks.train), ("val", &risks.val)] {
        let quantiles = risk.distance.quantiles.iter();
        let quantiles = quantiles.map(|(share, value)| format!("{:.0}% {value:.2}", 100.0 * share));
        let quantiles: Vec<_> = quantiles.collect();
        output::line(&format!("{part} distance/sigma: {}", quantiles.join("  ")))?;
    }
    Ok(())
}
