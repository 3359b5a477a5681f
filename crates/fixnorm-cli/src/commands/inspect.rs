//! `fixnorm inspect`.

use std::process::ExitCode;

use fixnorm_train::Bundle;
use fixnorm_train::analysis::inspect::{Inspection, Risks, inspect, risks};

use crate::args::{Format, InspectArgs};
use crate::output;

pub(crate) fn run(args: &InspectArgs, format: Format) -> anyhow::Result<ExitCode> {
    let bundle = args.weights.as_deref().map(Bundle::read).transpose()?;
    let mut found = inspect(args.model.as_deref(), bundle.as_ref(), &args.device)?;
    if let (Some(bundle), Some(data)) = (&bundle, &args.data) {
        let model = args.model.as_deref();
        found.risk = Some(risks(bundle, model, data, args.pictures as usize, &args.device)?);
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
    let head = ["pictures", "tau", "risk", "standard error", "lower", "upper"];
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
