//! `fixnorm risk`, and the tables of what is measured on features, which `inspect` prints too.

use std::process::ExitCode;

use fixnorm_train::analysis::features::measure;
use fixnorm_train::analysis::{Risk, RiskConfig, Separation};

use crate::args::{Format, RiskArgs};
use crate::output;

pub(crate) fn run(args: &RiskArgs, format: Format) -> anyhow::Result<ExitCode> {
    let config = RiskConfig { taus: args.tau.clone(), draws: args.draws, seed: args.seed };
    let found = measure(&args.features, &config)?;
    match format {
        Format::Json => output::json(&found)?,
        Format::Text => text(&[("", &found.risk, &found.separation)])?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what was measured, each with what its samples are called: a name and a space, or nothing.
pub(crate) fn text(measured: &[(&str, &Risk, &Separation)]) -> anyhow::Result<()> {
    let head = ["samples", "tau", "risk", "standard error", "lower", "upper"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, risk, _) in measured {
        for at in &risk.risk {
            let numbers = [at.cbr, at.standard_error, at.lower, at.upper];
            let mut row = vec![format!("{name}{}", risk.count), at.tau.to_string()];
            row.extend(numbers.map(|number| format!("{number:.5}")));
            rows.push(row);
        }
    }
    output::table(&rows)?;
    for (name, risk, _) in measured {
        let quantiles = risk.distance.quantiles.iter();
        let quantiles = quantiles.map(|(share, value)| format!("{:.0}% {value:.2}", 100.0 * share));
        let quantiles: Vec<_> = quantiles.collect();
        output::line(&format!("{name}distance/sigma: {}", quantiles.join("  ")))?;
    }
    for (name, _, Separation { confidence, class_means }) in measured {
        output::line(&format!(
            "{name}top-1 {:.4}  loss {:.4}  margin {:.3}  confidence {:.4}  ECE {:.4}  temperature {:.3}",
            confidence.top1,
            confidence.loss,
            confidence.margin.mean,
            confidence.confidence,
            confidence.ece,
            confidence.temperature
        ))?;
        output::line(&format!(
            "{name}feature norm {:.3}  within/between {:.4}  angles {:.4}  head angle {:.4} rad  nearest mean {:.4}",
            class_means.feature_norm,
            class_means.within_over_between,
            class_means.angle_deviation,
            class_means.head_angle,
            class_means.nearest_mean
        ))?;
    }
    Ok(())
}
