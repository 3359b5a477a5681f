//! The built-in recipes: the files of the folder `recipes`.

/// A recipe by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedRecipe {
    /// The file's name without `.toml`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

/// The recipes of these files.
macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        &[$(NamedRecipe {
            name: $name,
            text: include_str!(concat!("../../recipes/", $name, ".toml")),
        }),*]
    };
}

/// All of them, by name.
pub const RECIPES: &[NamedRecipe] = recipes![
    "cifar10_resnet20",
    "cifar10_resnet20_wd",
    "efficientnet_b0",
    "efficientnet_b0_wd_tf",
    "efficientnet_b0_wd_timm",
    "fashion_resnet20",
    "finetune",
    "mobilenetv2_100",
    "mobilenetv2_100_wd",
    "mobilenetv2_b0",
    "mobilenetv2_b0_wd",
    "resnet50",
    "resnet50_a3",
    "resnet50_a3_wd",
    "resnet50_wd",
    "semnasnet_100",
];

impl NamedRecipe {
    /// The recipe of this name.
    pub fn find(name: &str) -> Option<&'static NamedRecipe> {
        RECIPES.iter().find(|recipe| recipe.name == name)
    }

    /// The name most similar to `name`.
    pub fn nearest(name: &str) -> &'static str {
        let alike = |recipe: &&NamedRecipe| strsim::jaro_winkler(name, recipe.name);
        let best = RECIPES.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        best.map_or("", |recipe| recipe.name)
    }

    /// The first line of its text, which summarizes it.
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecipeBuilder;

    #[test]
    fn every_recipe_is_valid_and_has_a_summary() {
        for recipe in RECIPES {
            let builder = RecipeBuilder::new().text(recipe.text, recipe.name).unwrap();
            assert!(builder.warnings().is_empty(), "{:?}", builder.warnings());
            builder.build().unwrap().resolved().validate().unwrap();
            assert!(recipe.summary().len() > 20, "{}", recipe.name);
            assert!(NamedRecipe::find(recipe.name).is_some());
        }
    }

    #[test]
    fn the_list_is_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
            .collect();
        files.sort();
        assert_eq!(files, RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>());
    }
}
