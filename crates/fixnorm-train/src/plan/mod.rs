//! The plan: a recipe with every value resolved for its model and data, saved with the run.
//! Not here: training by it (`session`).

pub(crate) mod pretrained;

use burn::tensor::Device;
use fixnorm::LrSchedule;
use fixnorm_data::{DataSet, DataSpec, LoadOptions, Normalization, Resize};
use fixnorm_nn::{Input, ModelSpec};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::TrainError;
use crate::device::Devices;
use crate::recipe::Recipe;

/// The program that made a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of fixnorm.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// The devices.
    pub device: Devices,
}

/// Values that follow from model and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Derived {
    /// Height, width and channels of an image in evaluation.
    #[serde(rename = "picture")]
    pub image: [usize; 3],
    /// Height, width and channels of a training image, at its largest.
    #[serde(rename = "train_picture")]
    pub train_image: [usize; 3],
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Mean of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// Resizing to `image`; none where all images have that size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Fingerprint of the data's content, which does not depend on its place; none in plans of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Number of training images.
    #[serde(rename = "train_pictures")]
    pub train_images: usize,
    /// Number of validation images, on which choices are made.
    #[serde(rename = "val_pictures")]
    pub val_images: usize,
    /// Number of test images, read once at the end.
    #[serde(rename = "test_pictures")]
    pub test_images: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-accumulates of one image.
    pub macs: u64,
}

/// A run with every value resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The program that made it.
    pub made_by: Provenance,
    /// The values that follow from model and data.
    pub derived: Derived,
    /// The recipe, defaults included.
    pub recipe: Recipe,
}

/// The first device, if it and the others can do what the recipe asks for.
fn first_device(recipe: &Recipe, made_by: &Provenance) -> Result<Device, TrainError> {
    let train = &recipe.train;
    made_by.device.first_for(train.precision, train.recompute, train.batch_size)
}

impl Plan {
    /// Resolves a recipe and loads its data set. Images of any size are resized to the model's own resolution.
    ///
    /// # Errors
    /// Unknown model or data, data that cannot be read, values out of range.
    pub fn resolve(recipe: Recipe, made_by: Provenance) -> Result<(Self, DataSet), TrainError> {
        Self::resolve_with(recipe, made_by, &LoadOptions::default())
    }

    /// As [`resolve`](Self::resolve), with `options` for loading the data set.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_with(
        recipe: Recipe,
        made_by: Provenance,
        options: &LoadOptions<'_>,
    ) -> Result<(Self, DataSet), TrainError> {
        // First the checks that need no images.
        recipe.clone().resolved().validate()?;
        ModelSpec::find(&recipe.model)?;
        first_device(&recipe, &made_by)?;
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
        let device = first_device(&recipe, &made_by)?;
        let train_images = data.train.len();
        // An incomplete last step is left out: its batch statistics would differ.
        let steps_per_epoch = train_images / recipe.train.step_size();
        let recipe_epochs = recipe.train.epochs;
        if steps_per_epoch == 0 {
            return Err(TrainError::StepTooLarge {
                step_size: recipe.train.step_size(),
                images: train_images,
                data: recipe.data,
            });
        }
        let own = [spec.resolution, spec.resolution, spec.input.channels];
        let given = data.shape.unwrap_or(own);
        let of_side =
            |side: Option<usize>, default| side.map_or(default, |side| [side, side, given[2]]);
        let train_image = of_side(recipe.train.resolution, given);
        let image = of_side(recipe.eval.resolution, train_image);
        let has_shape = data.shape == Some(train_image) && recipe.train.start_resolution.is_none();
        let recipe = recipe
            .with_images(pretrained::resize(spec), has_shape, train_image)
            .with_steps(steps_per_epoch * recipe_epochs);
        let [height, width, channels] = image;
        let Normalization { mean, std } = data.normalization_of(channels);
        let input = Input { channels, classes: data.class_names.len() };
        let model = spec.init(input, 0, &device.autodiff());
        if recipe.train.drop_path > 0.0 && !model.has_shortcuts() {
            let (drop_path, model) = (recipe.train.drop_path, recipe.model);
            return Err(TrainError::NoShortcuts { drop_path, model });
        }
        let derived = Derived {
            image,
            train_image,
            classes: data.class_names.clone(),
            mean,
            std,
            resize: (data.shape != Some(image)).then(|| Resize {
                crop_ratio: recipe.transform().crop_ratio,
                interpolation: recipe.transform().interpolation,
            }),
            fingerprint: Some(data.fingerprint()),
            train_images,
            val_images: data.val.len(),
            test_images: data.test.as_ref().map_or(0, |test| test.len()),
            steps_per_epoch,
            steps: steps_per_epoch * recipe.train.epochs,
            params: model.params(),
            macs: model.macs(height, width),
        };
        Ok(Self { made_by, derived, recipe })
    }

    /// The model's input channels and classes.
    pub fn input(&self) -> Input {
        Input { channels: self.derived.image[2], classes: self.derived.classes.len() }
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

    /// Height, width and channels of a training image in an epoch.
    pub fn train_shape(&self, epoch: usize) -> [usize; 3] {
        let [height, width, channels] = self.derived.train_image;
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

    /// The normalization of pixels.
    pub fn normalization(&self) -> Normalization {
        Normalization { mean: self.derived.mean.clone(), std: self.derived.std.clone() }
    }

    /// Key, old and new value of every difference that changes the result of a run; the device is left out.
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
        // A broken image that was replaced makes another fingerprint, and no other run.
        let without_fingerprint =
            |derived: &Derived| Derived { fingerprint: None, ..derived.clone() };
        if changes.is_empty()
            && without_fingerprint(&self.derived) != without_fingerprint(&new.derived)
        {
            changes.push(format!("the data of {} have changed", self.recipe.data));
        }
        changes
    }

    /// The text of `plan.toml`.
    pub fn to_toml(&self) -> String {
        let table = Table::try_from(self).expect("a plan is a table of plain values");
        format!("# Every value of this run, resolved. Read by --resume.\n{table}")
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// A one-line description of what does not parse.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut plan: Self =
            toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())?;
        // Plans from before there was this key.
        plan.recipe.optimizer.free_lr_scale.get_or_insert(1.0);
        Ok(plan)
    }
}
