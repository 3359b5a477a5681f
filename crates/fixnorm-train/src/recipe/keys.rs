//! From recipe files and `key=value` overrides to a [`Recipe`]; unknown keys are refused.
//! Not here: what the keys mean (`mod.rs`).

use std::path::Path;

use toml::{Table, Value};

use crate::recipe::named::NamedRecipe;
use crate::recipe::values::{as_float_where_needed, as_whole, is_old_none, parse_assignment};
use crate::recipe::{Recipe, RecipeError};

/// Keys that have new names; the old ones still read.
const RENAMED: [(&str, &str); 1] = [("optimizer.alpha", "optimizer.rms_decay")];

/// Collects what differs from the defaults; later values win.
#[derive(Clone, Debug, Default)]
pub struct RecipeBuilder {
    values: Table,
    warnings: Vec<String>,
}

impl RecipeBuilder {
    /// Everything at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a recipe by its name, or a recipe file.
    ///
    /// # Errors
    /// As [`file`](Self::file), or a name that is neither.
    pub fn named_or_file(self, given: &Path) -> Result<Self, RecipeError> {
        let name = given.to_str().unwrap_or_default();
        match NamedRecipe::find(name) {
            Some(recipe) => self.text(recipe.text, recipe.name),
            None if given.components().count() == 1
                && given.extension().is_none()
                && !given.exists() =>
            {
                Err(RecipeError::unknown(name))
            }
            None => self.file(given),
        }
    }

    /// Adds a recipe file.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, or has keys or values that no recipe has.
    pub fn file(self, path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        self.text(&text, &path.display().to_string())
    }

    /// Adds a recipe's text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn text(mut self, text: &str, origin: &str) -> Result<Self, RecipeError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| RecipeError::Syntax {
            origin: origin.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        for (key, value) in leaves(&table, "") {
            self.insert(&key, value, origin)?;
        }
        Ok(self)
    }

    /// Sets one key, named by its dotted path.
    ///
    /// # Errors
    /// An unknown key or a value that does not fit it.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Result<Self, RecipeError> {
        self.insert(key, value.into(), "recipe")?;
        Ok(self)
    }

    /// Adds one `key=value`, as in the command's `--set`. A value that is not TOML is a string.
    ///
    /// # Errors
    /// Another form, an unknown key or a value that does not fit it.
    pub fn override_with(mut self, assignment: &str) -> Result<Self, RecipeError> {
        let (key, value) = parse_assignment(assignment)?;
        self.insert(key, value, "--set")?;
        Ok(self)
    }

    /// The recipe.
    ///
    /// # Errors
    /// None that the other methods have not found already.
    pub fn build(&self) -> Result<Recipe, RecipeError> {
        Recipe::deserialize_from(self.values.clone())
    }

    /// Warnings about keys and values that still read but have better forms now.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The keys that were given.
    pub fn keys(&self) -> Vec<String> {
        leaves(&self.values, "").into_iter().map(|(key, _)| key).collect()
    }

    fn insert(&mut self, key: &str, value: Value, origin: &str) -> Result<(), RecipeError> {
        let key = self.renamed(key, origin);
        check_key(key, origin)?;
        let mut value = as_float_where_needed(key, value);
        // One value alone, so that an error is about it.
        let alone = |value: &Value| {
            let mut alone = Table::new();
            put(&mut alone, key, value.clone());
            Recipe::deserialize_from(alone)
        };
        let mut read = alone(&value);
        // `epochs = 1e2` means 100.
        if let (Err(_), Some(whole)) = (&read, as_whole(&value))
            && let Ok(recipe) = alone(&whole)
        {
            (read, value) = (Ok(recipe), whole);
        }
        let alone = read.map_err(|error| RecipeError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            message: match error {
                RecipeError::Syntax { message, .. } => message,
                other => other.to_string(),
            },
        })?;
        let read = alone.entries().into_iter().find(|(known, _)| known == key);
        if let Some((_, Value::String(word))) = read
            && matches!(word.as_str(), "none" | "auto")
            && is_old_none(&value)
        {
            let new = format!("write {key} = \"{word}\"");
            self.warnings.push(format!("{origin}: {key} = {value} is an old form; {new}"));
        }
        put(&mut self.values, key, value);
        Ok(())
    }

    /// The key's name now.
    fn renamed<'a>(&mut self, key: &'a str, origin: &str) -> &'a str {
        let Some((old, new)) = RENAMED.into_iter().find(|(old, _)| *old == key) else {
            return key;
        };
        self.warnings.push(format!("{origin}: `{old}` is now called `{new}`"));
        new
    }
}

impl Recipe {
    fn deserialize_from(table: Table) -> Result<Recipe, RecipeError> {
        table.try_into().map_err(|error: toml::de::Error| RecipeError::Syntax {
            origin: "values".to_owned(),
            message: error.to_string().lines().next().unwrap_or_default().trim().to_owned(),
        })
    }

    /// Every key with its value, in the order of the sections.
    pub fn entries(&self) -> Vec<(String, Value)> {
        let table = Table::try_from(self).expect("a recipe is a table of plain values");
        leaves(&table, "")
    }

    /// The recipe as a file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is a table of plain values")
    }
}

/// Sections of any key, dots included.
const OPEN: [&str; 2] = ["roles.", "lr_scale."];

/// The part before the first dot is a section.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, leaf)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(leaf.to_owned(), value);
            }
        }
    }
}

fn leaves(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut found = vec![];
    for (name, value) in table {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        match value {
            Value::Table(inner) => found.extend(leaves(inner, &key)),
            value => found.push((key, value.clone())),
        }
    }
    found
}

fn check_key(key: &str, origin: &str) -> Result<(), RecipeError> {
    let known: Vec<String> = Recipe::default().entries().into_iter().map(|(key, _)| key).collect();
    if OPEN.iter().any(|section| key.starts_with(section)) || known.iter().any(|known| known == key)
    {
        return Ok(());
    }
    let section = format!("{key}.");
    if let Some(inner) = known.iter().find_map(|known| known.strip_prefix(&section)) {
        let (section, key) = (key.to_owned(), inner.to_owned());
        return Err(RecipeError::Section { origin: origin.to_owned(), section, key });
    }
    Err(RecipeError::UnknownKey {
        origin: origin.to_owned(),
        key: key.to_owned(),
        nearest: nearest(key, &known),
    })
}

/// The known key most like `key`: its last part counts twice, for sections are easily left out.
fn nearest(key: &str, known: &[String]) -> String {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let alike = |candidate: &String| {
        strsim::jaro_winkler(key, candidate)
            + 2.0 * strsim::jaro_winkler(&leaf(key), &leaf(candidate))
            // Or `lr` would be taken for `head.lr_scale`.
            + f64::from(u8::from(leaf(key) == leaf(candidate)))
    };
    let best = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    best.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Train;
    use fixnorm::Role;

    #[test]
    fn defaults_survive_a_round_trip() {
        let recipe = Recipe::default();
        let read = RecipeBuilder::new().text(&recipe.to_toml(), "test").unwrap().build().unwrap();
        assert_eq!(read, recipe);
    }

    #[test]
    fn later_values_win_and_types_are_kept() {
        let text = "model = \"resnet20\"\n[optimizer]\nlr = 1\nradius = 3\n[schedule]\nmilestones = [1, 2.5]\n";
        let recipe = RecipeBuilder::new()
            .text(text, "test")
            .unwrap()
            .override_with("optimizer.lr=0.25")
            .unwrap()
            .override_with("schedule.shape=sqrt_cosine")
            .unwrap()
            .override_with("roles.stages.*.weight=free")
            .unwrap()
            .build()
            .unwrap();
        assert_eq!((recipe.model.as_str(), recipe.optimizer.lr()), ("resnet20", 0.25));
        assert_eq!(recipe.schedule.shape, fixnorm::ScheduleShape::SqrtCosine);
        assert_eq!(recipe.schedule.milestones, [1.0, 2.5]);
        assert_eq!(recipe.roles["stages.*.weight"], Role::Free);
        assert_eq!(recipe.optimizer.radius, fixnorm::Radius::Value { norm: 3.0 });
    }

    #[test]
    fn a_section_is_not_a_key() {
        for assignment in ["train=3", "optimizer=sgd"] {
            let error = RecipeBuilder::new().override_with(assignment).unwrap_err().to_string();
            assert!(error.contains("is a section, not a key"), "{error}");
        }
        let error = RecipeBuilder::new().text("train = 3", "r.toml").unwrap_err().to_string();
        assert!(
            error.starts_with("r.toml: `train` is a section")
                && error.contains("for example train."),
            "{error}"
        );
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one() {
        for (key, expected) in [
            ("optimizer.learning_rate", "optimizer.lr"),
            ("train.epoch", "train.epochs"),
            ("lr", "optimizer.lr"),
            ("head.alhpa", "head.alpha"),
            ("optimiser.momentum", "optimizer.momentum"),
            ("modle", "model"),
        ] {
            let error = RecipeBuilder::new().override_with(&format!("{key}=1")).unwrap_err();
            let RecipeError::UnknownKey { nearest, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(nearest, expected, "for {key}");
        }
        let error = RecipeBuilder::new().text("[trian]\nepochs = 3\n", "my.toml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "my.toml: unknown key `trian.epochs`; did you mean `train.epochs`?"
        );
    }

    #[test]
    fn old_forms_read_and_warn_of_the_new_ones() {
        let text = "init = \"\"\n[train]\nema_decay = 0\n[optimizer]\nalpha = 0.8\n[log]\nmeasure_every_steps = 0\n";
        let builder = RecipeBuilder::new().text(text, "my.toml").unwrap();
        let recipe = builder.build().unwrap();
        assert_eq!((recipe.init, recipe.train.ema_decay), (None, None));
        assert_eq!((recipe.log.measure_every_steps, recipe.optimizer.rms_decay), (None, 0.8));
        let mut warnings = builder.warnings().to_vec();
        warnings.sort();
        assert_eq!(
            warnings,
            [
                "my.toml: `optimizer.alpha` is now called `optimizer.rms_decay`",
                "my.toml: init = \"\" is an old form; write init = \"none\"",
                "my.toml: log.measure_every_steps = 0 is an old form; write log.measure_every_steps = \"none\"",
                "my.toml: train.ema_decay = 0 is an old form; write train.ema_decay = \"none\"",
            ]
        );
        // The new ones, and zeros that are numbers, do not.
        let text = "init = \"none\"\n[train]\nema_decay = \"none\"\nlabel_smoothing = 0\nseed = 0\n[eval]\ncrop_ratio = \"auto\"\n";
        let builder = RecipeBuilder::new().text(text, "my.toml").unwrap();
        assert!(builder.warnings().is_empty(), "{:?}", builder.warnings());
        assert_eq!(
            builder.build().unwrap(),
            Recipe {
                train: Train { label_smoothing: 0.0, ..Train::default() },
                ..Recipe::default()
            }
        );
    }

    #[test]
    fn plans_of_older_versions_read_without_a_warning() {
        let text = Recipe::default().to_toml();
        let old = text
            .replace("rms_decay", "alpha")
            .replace("cache = \"none\"\n", "")
            .replace("recompute = \"none\"\n", "")
            .replace("\"none\"", "0")
            .replace("clip_norm = 0", "clip_norm = 0.0")
            .replace("init = 0", "init = \"\"")
            .replace("run = 0", "run = \"\"")
            .replace("auto_augment = 0", "auto_augment = \"\"");
        assert_eq!(toml::from_str::<Recipe>(&old).unwrap(), Recipe::default());
    }

    #[test]
    fn bad_values_name_the_key() {
        for (assignment, part) in [
            ("schedule.shape=cosinus", "unknown variant `cosinus`"),
            ("train.epochs=many", "train.epochs = \"many\""),
            ("optimizer.radius=big", "optimizer.radius"),
            ("train.epochs=-1", "train.epochs = -1"),
        ] {
            let error = RecipeBuilder::new().override_with(assignment).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(RecipeBuilder::new().override_with("train.epochs").is_err());
        assert!(RecipeBuilder::new().text("a = = 2", "x.toml").is_err());
    }
}
