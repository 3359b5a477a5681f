//! The images of a run: a loader for each split, and the list of images that were skipped.
//! Not here: decoding and augmentation (`fixnorm-data`).

use fixnorm_data::{BadImage, DataSet, Loader, LoaderConfig};

use crate::evaluate::loader::{Order, loader};
use crate::run_dir::{RunDir, Skipped, Split};
use crate::session::prepare::train_config;
use crate::{Plan, TrainError};

/// The loaders of a run.
pub(crate) struct Images {
    pub(crate) train: Loader,
    val: Loader,
    test: Option<Loader>,
    /// Training and validation images, not augmented, in random order, for cross-boundary risk.
    pub(crate) risk: [(Split, Loader); 2],
    /// Images that cannot be read, over all sessions.
    skipped: Vec<Skipped>,
}

impl Images {
    /// The loaders of a plan. They know the images that earlier sessions of the run skipped.
    pub(crate) fn new(plan: &Plan, data: &DataSet, dir: &RunDir) -> Result<Self, TrainError> {
        let recipe = &plan.recipe;
        let unchanged = |source, order, cache| {
            let preprocessing = (plan.normalization(), plan.derived.resize);
            let (shape, batch_size) = (plan.derived.image, recipe.train.batch_size);
            loader(source, shape, preprocessing, batch_size, &recipe.loader, order, cache)
        };
        let once = |source, order| unchanged(source, order, None);
        let cache = recipe.loader.open_cache()?;
        let training = LoaderConfig { cache: cache.clone(), ..train_config(plan) };
        let images = Self {
            train: Loader::new(data.train.clone(), plan.derived.train_image, training)?,
            val: unchanged(data.val.clone(), Order::Given, cache)?,
            test: data.test.clone().map(|test| once(test, Order::Given)).transpose()?,
            risk: [
                (Split::Train, once(data.train.clone(), Order::Shuffled)?),
                (Split::Val, once(data.val.clone(), Order::Shuffled)?),
            ],
            skipped: dir.files().bad_images()?,
        };
        // A checkpoint keeps its place in an epoch of training, and with it how many bad images came before. Validation and
        // test are read from their start, where an image may have been repaired.
        let own = images.skipped.iter().filter(|skipped| skipped.part == Split::Train);
        images.train.remember(own.map(|skipped| skipped.image.clone()).collect())?;
        Ok(images)
    }

    /// The loader of a split, if there is one.
    pub(crate) fn loader(&self, split: Split) -> Option<&Loader> {
        match split {
            Split::Train => Some(&self.train),
            Split::Val => Some(&self.val),
            Split::Test => self.test.as_ref(),
        }
    }

    /// Number of skipped images.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// Adds skipped images to the run's list, and returns those that are new.
    pub(crate) fn skip(
        &mut self,
        split: Split,
        bad: Vec<BadImage>,
        dir: &RunDir,
    ) -> Result<Vec<BadImage>, TrainError> {
        let known = |bad: &BadImage| {
            let mut listed = self.skipped.iter().filter(|skipped| skipped.part == split);
            listed.any(|skipped| skipped.image.index == bad.index)
        };
        let new: Vec<_> = bad.into_iter().filter(|bad| !known(bad)).collect();
        if !new.is_empty() {
            let skipped = |image: &BadImage| Skipped { part: split, image: image.clone() };
            self.skipped.extend(new.iter().map(skipped));
            dir.save_bad_images(&self.skipped)?;
        }
        Ok(new)
    }
}
