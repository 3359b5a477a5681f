//! The plan: a recipe with everything that follows from it, saved with the run.
//! Not here: carrying it out (`session`).

pub(crate) mod pretrained;

use fixnorm::LrSchedule;
use fixnorm_data::{DataSet, DataSpec, LoadOptions, Normalization, Resize};
use fixnorm_nn::{Input, ModelSpec};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::TrainError;
use crate::device::Devices;
use crate::recipe::Recipe;

/// Which program made a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of fixnorm.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// The devices.
    pub device: Devices,
}

/// Numbers that follow from model and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Derived {
    /// Height, width and channels of a picture.
    pub picture: [usize; 3],
    /// The same of a training picture, once it is as large as it gets.
    pub train_picture: [usize; 3],
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Mean of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// How pictures of any size come to `picture`; none where all have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Training pictures.
    pub train_pictures: usize,
    /// Validation pictures, on which choices are made.
    pub val_pictures: usize,
    /// Test pictures, read once at the end.
    pub test_pictures: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-accumulates of one picture.
    pub macs: u64,
}

/// A run with every value resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Which program made it.
    pub made_by: Provenance,
    /// What follows from model and data.
    pub derived: Derived,
    /// What was chosen, or is the default.
    pub recipe: Recipe,
}

impl Plan {
    /// Resolves a recipe; the data set is loaded on the way. Pictures of any size are shown to the model in
    /// its own resolution.
    ///
    /// # Errors
    /// Unknown model or data, data that cannot be read, values out of range.
    pub fn resolve(recipe: Recipe, made_by: Provenance) -> Result<(Self, DataSet), TrainError> {
        Self::resolve_with(recipe, made_by, &LoadOptions::default())
    }

    /// The same; `options` say how the data set is loaded.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_with(
        recipe: Recipe,
        made_by: Provenance,
        options: &LoadOptions<'_>,
    ) -> Result<(Self, DataSet), TrainError> {
        // First what can fail without reading pictures.
        recipe.clone().resolved().validate()?;
        ModelSpec::find(&recipe.model)?;
        made_by.device.first_for(recipe.train.precision, recipe.train.batch_size)?;
        let data = recipe.data.parse::<DataSpec>()?.load_with(options)?;
        let plan = Self::of(recipe, made_by, &data)?;
        Ok((plan, data))
    }

    /// Resolves a recipe for the data set that it names, loaded before.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn of(recipe: Recipe, made_by: Provenance, data: &DataSet) -> Result<Self, TrainError> {
        let recipe = recipe.resolved();
        recipe.validate()?;
        let spec = ModelSpec::find(&recipe.model)?;
        let device = made_by.device.first_for(recipe.train.precision, recipe.train.batch_size)?;
        let train_pictures = data.train.len();
        // An incomplete last step is left out: its batch statistics would be another net's.
        let steps_per_epoch = train_pictures / recipe.train.step_size();
        if steps_per_epoch == 0 {
            return Err(TrainError::StepTooLarge {
                step_size: recipe.train.step_size(),
                images: train_pictures,
                data: recipe.data,
            });
        }
        let own = [spec.resolution, spec.resolution, spec.input.channels];
        let given = data.shape.unwrap_or(own);
        let of_side =
            |side: Option<usize>, default| side.map_or(default, |side| [side, side, given[2]]);
        let train_picture = of_side(recipe.train.resolution, given);
        let picture = of_side(recipe.eval.resolution, train_picture);
        let has_shape =
            data.shape == Some(train_picture) && recipe.train.start_resolution.is_none();
        let recipe = recipe.with_images(pretrained::resize(spec), has_shape);
        let [height, width, channels] = picture;
        let Normalization { mean, std } = data.normalization_of(channels);
        let input = Input { channels, classes: data.class_names.len() };
        let model = spec.init(input, 0, &device.autodiff());
        if recipe.train.drop_path > 0.0 && !model.has_shortcuts() {
            let (drop_path, model) = (recipe.train.drop_path, recipe.model);
            return Err(TrainError::NoShortcuts { drop_path, model });
        }
        let derived = Derived {
            picture,
            train_picture,
            classes: data.class_names.clone(),
            mean,
            std,
            resize: (data.shape != Some(picture)).then(|| Resize {
                crop_ratio: recipe.transform().crop_ratio,
                interpolation: recipe.transform().interpolation,
            }),
            train_pictures,
            val_pictures: data.val.len(),
            test_pictures: data.test.as_ref().map_or(0, |test| test.len()),
            steps_per_epoch,
            steps: steps_per_epoch * recipe.train.epochs,
            params: model.params(),
            macs: model.macs(height, width),
        };
        Ok(Self { made_by, derived, recipe })
    }

    /// What the model takes and gives.
    pub fn input(&self) -> Input {
        Input { channels: self.derived.picture[2], classes: self.derived.classes.len() }
    }

    /// The model.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the plan comes from a version that had other models.
    pub fn spec(&self) -> Result<&'static ModelSpec, TrainError> {
        Ok(ModelSpec::find(&self.recipe.model)?)
    }

    /// The learning rate of every step.
    pub fn lr_schedule(&self) -> LrSchedule {
        self.recipe.lr_schedule(self.derived.steps_per_epoch)
    }

    /// Height, width and channels of a training picture in an epoch.
    pub fn train_picture(&self, epoch: usize) -> [usize; 3] {
        let [height, width, channels] = self.derived.train_picture;
        let epochs = self.recipe.train.epochs;
        let start = self.recipe.train.start_resolution.filter(|_| epoch + 1 < epochs);
        let Some(start) = start else { return [height, width, channels] };
        const STEP: f64 = 32.0;
        let grown = |side: usize| {
            let share = epoch as f64 / (epochs - 1) as f64;
            let exact = start as f64 + (side as f64 - start as f64) * share;
            (((exact / STEP).round() * STEP) as usize).clamp(start.min(side), start.max(side))
        };
        [grown(height), grown(width), channels]
    }

    /// How pictures become numbers.
    pub fn normalization(&self) -> Normalization {
        Normalization { mean: self.derived.mean.clone(), std: self.derived.std.clone() }
    }

    /// Key, old and new value of everything that would change the result of a run, besides the device.
    pub fn changes(&self, new: &Plan) -> Vec<String> {
        // These sections change no weight.
        let harmless = ["loader.", "log.", "checkpoint."];
        let (old_entries, new_entries) = (self.recipe.entries(), new.recipe.entries());
        let value = |entries: &[(String, toml::Value)], key: &str| {
            let entry = entries.iter().find(|(known, _)| known == key);
            entry.map_or_else(|| "unset".to_owned(), |(_, value)| value.to_string())
        };
        let mut keys: Vec<&String> =
            old_entries.iter().chain(&new_entries).map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| !harmless.iter().any(|section| key.starts_with(section)));
        let mut changes: Vec<String> = keys
            .into_iter()
            .map(|key| (key, value(&old_entries, key), value(&new_entries, key)))
            .filter(|(_, old, new)| old != new)
            .map(|(key, old, new)| format!("{key} was {old}, is {new}"))
            .collect();
        if changes.is_empty() && self.derived != new.derived {
            changes.push(format!("the data of {} are others now", self.recipe.data));
        }
        changes
    }

    /// The plan as a file's text.
    pub fn to_toml(&self) -> String {
        let table = Table::try_from(self).expect("a plan is a table of plain values");
        format!("# Every value of this run, resolved. Read by --resume.\n{table}")
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// A one-line description of what does not parse.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let plan = toml::from_str(text);
        plan.map_err(|error| error.message().to_owned())
    }
}
