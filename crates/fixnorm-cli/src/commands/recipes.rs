//! `fixnorm recipes`.

use std::process::ExitCode;

use fixnorm_train::recipe::named::{NamedRecipe, RECIPES};
use fixnorm_train::{RecipeError, TrainError};
use serde_json::json;

use crate::args::{Format, RecipesArgs};
use crate::output;

pub(crate) fn run(args: &RecipesArgs, format: Format) -> anyhow::Result<ExitCode> {
    let row = |recipe: &NamedRecipe| json!({"name": recipe.name, "summary": recipe.summary(), "toml": recipe.text});
    match (&args.name, format) {
        (None, Format::Json) => output::json(&RECIPES.iter().map(row).collect::<Vec<_>>())?,
        (None, Format::Text) => {
            let cells =
                |recipe: &NamedRecipe| vec![recipe.name.to_owned(), recipe.summary().to_owned()];
            output::table(&RECIPES.iter().map(cells).collect::<Vec<_>>())?;
        }
        (Some(name), format) => {
            let recipe = NamedRecipe::find(name)
                .ok_or_else(|| TrainError::from(RecipeError::unknown(name)))?;
            match format {
                Format::Json => output::json(&row(recipe))?,
                Format::Text => output::line(recipe.text.trim_end())?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
