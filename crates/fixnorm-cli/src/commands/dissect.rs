//! `fixnorm dissect`.

use std::process::ExitCode;

use fixnorm_train::analysis::dissect::stats::{Interval, Stat};
use fixnorm_train::analysis::dissect::{
    Dissect, Dissection, Ended, Settings, arms, chosen, collect, gap,
};
use fixnorm_train::files::check_dir;
use fixnorm_train::{RecipeBuilder, TrainError};
use serde_json::json;

use crate::args::{DissectArgs, Format};
use crate::output::{self, UsageError};
use crate::progress::Progress;
use crate::run::{interrupted, made_by, recipe, stop_on_signals};

pub(crate) fn run(args: &DissectArgs, format: Format) -> anyhow::Result<ExitCode> {
    let settings = Settings { lr: args.wd_lr, weight_decay: args.wd };
    let mut builder = RecipeBuilder::new();
    if args.preset.is_some() {
        for (key, value) in gap::DEFAULTS {
            builder = builder.set(key, value).map_err(TrainError::from)?;
        }
    }
    let recipe = recipe(builder, &args.recipe, Ok)?;
    let all = match args.preset {
        Some(_) => gap::gap_arms(&recipe.data, &args.per_class),
        None => arms(&recipe, settings),
    };
    let arms = chosen(all, &args.arms)?;
    if args.list {
        let rows = arms.iter().map(|arm| vec![arm.name.clone(), arm.what.clone()]);
        match format {
            Format::Json => output::json(
                &rows.map(|row| json!({"name": row[0], "what": row[1]})).collect::<Vec<_>>(),
            )?,
            Format::Text => output::table(&rows.collect::<Vec<_>>())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.out.to_str().is_none() {
        // Arms name each other's runs in their recipes.
        return Err(UsageError("the path of --out has to be UTF-8: recipes hold it").into());
    }
    check_dir(&args.out)?;
    let made_by = made_by(&args.device.device.clone().unwrap_or_default());
    let dissect =
        Dissect { recipe, settings, arms, seeds: args.seeds, out: args.out.clone(), made_by };
    let stop = stop_on_signals()?;
    let ended = dissect.run(
        |task| {
            eprintln!("run {} of {}: {} seed {}", task.number, task.of, task.arm.name, task.seed);
            Progress::new()
        },
        &stop,
    )?;
    if ended == Ended::Interrupted {
        eprintln!("stopped and saved; the same command resumes it");
        return Ok(interrupted(&stop));
    }
    let found = collect(&dissect, &args.reference)?;
    found.save()?;
    match format {
        Format::Json => output::json(&found)?,
        Format::Text => text(&found)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Dissection) -> anyhow::Result<()> {
    let against = format!("val against {}", found.reference);
    let head =
        ["arm", "val top-1", "test top-1", "train top-1", "alpha", "CBR(1) val", "n", &against];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for arm in &found.arms {
        let risk = arm.risk_val.iter().find(|at| at.tau == 1.0).map(|at| at.cbr);
        rows.push(vec![
            arm.name.clone(),
            stat(arm.val_top1),
            stat(arm.test_top1),
            stat(arm.train_top1),
            stat(arm.alpha),
            stat(risk),
            arm.runs.len().to_string(),
            interval(arm.val_difference),
        ]);
    }
    output::table(&rows)?;
    for arm in found.arms.iter().filter(|arm| !arm.failed.is_empty()) {
        let seeds: Vec<_> = arm.failed.iter().map(|(seed, _)| seed.to_string()).collect();
        output::line(&format!("{}: no result with seed {}", arm.name, seeds.join(", ")))?;
    }
    for follow in &found.follow {
        output::line(&format!(
            "{} follows {}: training losses {} apart; seeds of {} are {} apart",
            follow.arm,
            follow.source,
            stat(Some(follow.distance)),
            follow.source,
            stat(follow.between_seeds),
        ))?;
    }
    for correlation in found.correlations.iter().filter(|correlation| correlation.tau == 1.0) {
        output::line(&format!(
            "{}: rank correlation of CBR(1) ({:?}) with val - train error {} over {} runs",
            correlation.over,
            correlation.part,
            interval(Some(correlation.rho)),
            correlation.rho.n
        ))?;
    }
    if let Some(gap) = &found.gap {
        output::line(&gap.finding)?;
    }
    output::line(&format!("runs  {}", found.out.display()))
}

fn stat(stat: Option<Stat>) -> String {
    match stat {
        None => "-".to_owned(),
        Some(Stat { mean, std: Some(std), .. }) => format!("{mean:.4} ± {std:.4}"),
        Some(Stat { mean, std: None, .. }) => format!("{mean:.4}"),
    }
}

fn interval(interval: Option<Interval>) -> String {
    match interval {
        None => "-".to_owned(),
        Some(Interval { estimate, low: Some(low), high: Some(high), .. }) => {
            format!("{estimate:+.4} [{low:+.4}, {high:+.4}]")
        }
        Some(Interval { estimate, .. }) => format!("{estimate:+.4}"),
    }
}
