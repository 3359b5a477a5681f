//! `fixnorm migrate`.

use std::process::ExitCode;

use fixnorm_train::analysis::MigrateError;
use fixnorm_train::analysis::inspect::{Subject, inspect};
use fixnorm_train::analysis::migrate::{Migration, decayed, from_recipe, from_run, from_weights};
use fixnorm_train::files::{check_file, write_atomic};
use fixnorm_train::{Bundle, Plan, Recipe, RecipeBuilder, TrainError};

use crate::args::{Format, MigrateArgs};
use crate::output;
use crate::run::{made_by, recipe, with_model_and_data};

pub(crate) fn run(args: &MigrateArgs, format: Format) -> anyhow::Result<ExitCode> {
    if let Some(out) = &args.out {
        check_file(out)?;
    }
    let migration = match (&args.run, &args.weights, args.wd) {
        (Some(run), ..) => from_run(run)?,
        (_, Some(weights), _) => {
            let bundle = Bundle::read(weights)?;
            let known = bundle.about().and_then(|about| about.lr);
            let lr = args.lr.or(known).ok_or_else(|| MigrateError::NoLr(weights.clone()));
            let lr = lr.map_err(TrainError::from)?;
            let subject = Subject::Weights(&bundle, args.model.as_deref());
            let found = inspect(subject, &args.device.device)?;
            from_weights(&found, lr, &choices(args)?)?
        }
        (.., wd) => {
            let mut recipe = choices(args)?;
            recipe.optimizer.lr = args.lr.or(recipe.optimizer.lr);
            if let (Some(lr), Some(wd)) = (args.lr, wd) {
                recipe = decayed(recipe, lr, wd, args.momentum);
            }
            let (plan, data) = Plan::resolve(recipe, made_by(&args.device.device.clone().into()))?;
            from_recipe(&plan, &data)?
        }
    };
    if let Some(out) = &args.out {
        write_atomic(out, migration.recipe()?.to_toml().as_bytes())?;
    }
    match format {
        Format::Json => output::json(&migration)?,
        Format::Text => {
            text(&migration)?;
            if let Some(out) = &args.out {
                output::line(&format!("fixnorm train --recipe {}", out.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The recipe that flags describe.
fn choices(args: &MigrateArgs) -> Result<Recipe, TrainError> {
    let flags = |builder| with_model_and_data(builder, args.model.as_deref(), args.data.as_deref());
    recipe(RecipeBuilder::new(), &args.recipe, flags)
}

fn text(migration: &Migration) -> anyhow::Result<()> {
    let head = ["weight", "angle (rad)", "lr", "effective lr", "radius"];
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.6}"));
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for layer in &migration.per_layer {
        rows.push(vec![
            layer.path.clone(),
            number(layer.angle),
            number(layer.lr),
            number(layer.effective_lr),
            format!("{:.4}", layer.radius),
        ]);
    }
    output::table(&rows)?;
    let (angle, lr) = (number(migration.angle), number(migration.lr));
    output::line(&format!("angle {angle} rad, or lr {lr}  alpha {:.6}", migration.alpha))?;
    for assumed in &migration.assumed {
        output::line(&format!("assumed: {assumed}"))?;
    }
    for settings in [migration.settings(), migration.angle_settings()].into_iter().flatten() {
        let flags = settings.iter().map(|(key, value)| match value.as_str() {
            Some(name) => format!("--set {key}={name}"),
            None => format!("--set {key}={value}"),
        });
        output::line(&format!("fixnorm train {}", flags.collect::<Vec<_>>().join(" ")))?;
    }
    Ok(())
}
