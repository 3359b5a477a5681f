//! `fixnorm migrate`.

use std::process::ExitCode;

use fixnorm_train::inspect::inspect;
use fixnorm_train::migrate::{Migration, decayed, from_recipe, from_run, from_weights};
use fixnorm_train::{Bundle, Plan, Recipe, RecipeBuilder, TrainError};

use crate::args::{Format, MigrateArgs};
use crate::commands::train::made_by;
use crate::output;

pub(crate) fn run(args: &MigrateArgs, format: Format) -> anyhow::Result<ExitCode> {
    let migration = match (&args.run, &args.weights, args.wd) {
        (Some(run), ..) => from_run(run)?,
        (_, Some(weights), _) => {
            let bundle = Bundle::read(weights)?;
            let known = bundle.about().and_then(|about| about.lr);
            let lr = args.lr.or(known).ok_or_else(|| {
                anyhow::anyhow!("{} does not say its learning rate; give --lr", weights.display())
            })?;
            let found = inspect(args.model.as_deref(), Some(&bundle), &args.device)?;
            from_weights(&found, lr, &recipe(args)?)?
        }
        (.., wd) => {
            let (lr, wd) = (args.lr.unwrap_or_default(), wd.unwrap_or_default());
            let recipe = decayed(recipe(args)?, lr, wd, args.momentum);
            let (plan, data) = Plan::resolve(recipe, made_by(&args.device))?;
            from_recipe(&plan, &data)?
        }
    };
    match format {
        Format::Json => output::json(&migration)?,
        Format::Text => text(&migration)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn recipe(args: &MigrateArgs) -> Result<Recipe, TrainError> {
    let mut builder = RecipeBuilder::new();
    if let Some(file) = &args.recipe {
        builder = builder.named_or_file(file)?;
    }
    if let Some(model) = &args.model {
        builder = builder.set("model", model.as_str())?;
    }
    if let Some(data) = &args.data {
        builder = builder.set("data", data.as_str())?;
    }
    for assignment in &args.overrides {
        builder = builder.override_with(assignment)?;
    }
    Ok(builder.build()?)
}

fn text(migration: &Migration) -> anyhow::Result<()> {
    let head = ["weight", "lr", "effective lr", "radius"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for layer in &migration.per_layer {
        rows.push(vec![
            layer.path.clone(),
            format!("{:.6}", layer.lr),
            format!("{:.6}", layer.effective_lr),
            format!("{:.4}", layer.radius),
        ]);
    }
    output::table(&rows)?;
    output::line(&format!("lr {:.6}  alpha {:.6}", migration.lr, migration.alpha))?;
    for assumed in &migration.assumed {
        output::line(&format!("assumed: {assumed}"))?;
    }
    let settings = migration.settings();
    let flags = settings.iter().map(|(key, value)| match value.as_str() {
        Some(name) => format!("--set {key}={name}"),
        None => format!("--set {key}={value}"),
    });
    output::line(&format!("fixnorm train {}", flags.collect::<Vec<_>>().join(" ")))
}
