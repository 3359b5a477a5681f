//! A data set to evaluate a model on: which of its images, and their labels as the model has them.
//! Not here: reading it (`folder.rs`, `tar.rs`, `parquet.rs`, …), mapping names (`classes.rs`).

use std::path::PathBuf;
use std::sync::Arc;

use crate::classes;
use crate::names::counted;
use crate::parts::{Part, Parts, Purpose, counts};
use crate::spec::Loaded;
use crate::split_names::SPLITS;
use crate::summary::PartSummary;
use crate::{
    DataError, DataSet, DataSpec, LoadOptions, Normalization, Sample, Source, Split, Summary,
    imagenet,
};

/// Images to evaluate a model on, with the model's labels.
#[derive(Clone)]
pub struct EvaluationSet {
    /// The images. Labels are numbers of the model's classes.
    pub source: Arc<dyn Source>,
    /// Which part they are; none where no name of the data means a split, and they are all of it.
    pub split: Option<Split>,
    /// Height, width and channels of an image; none where every image has its own.
    pub shape: Option<[usize; 3]>,
    /// How pixels become values, where the weights do not say it; as in [`DataSet`].
    pub normalization: Normalization,
    /// The model's classes that have images here.
    pub classes: Vec<String>,
    /// Summary of the data set, for people.
    pub summary: Summary,
}

impl DataSet {
    /// Opens a data set to evaluate a model with these class names on.
    ///
    /// That is the part asked for, or else its validation images; where no name means a split, all images; where
    /// there are only training images, those of them that training would validate on; or else its test images.
    /// A part may have fewer classes than the model. Classes are mapped by name; where one side has only numbers,
    /// by number, with a warning in the summary.
    ///
    /// # Errors
    /// As [`DataSpec::load`], a part that is not there, and [`DataError::UnknownClasses`].
    pub fn open_for_evaluation(
        spec: &DataSpec,
        part: Option<Split>,
        model_classes: &[String],
        options: &LoadOptions<'_>,
    ) -> Result<EvaluationSet, DataError> {
        match spec.read(Purpose::Evaluation(part), options)? {
            Loaded::Parts(parts) => of_parts(parts, part)?.of_model(model_classes),
            Loaded::DataSet(data) => of_data_set(data, part)?.of_model(model_classes),
        }
    }
}

/// Images with the data set's labels and classes.
struct Chosen {
    path: PathBuf,
    set: EvaluationSet,
    class_names: Vec<String>,
}

fn of_parts(mut parts: Parts, wanted: Option<Split>) -> Result<Chosen, DataError> {
    parts.check()?;
    let whole = parts.unsplit && wanted.is_none();
    if !whole && wanted != Some(Split::Test) && parts.train.is_some() {
        parts.take_val()?;
    }
    let split = match wanted {
        Some(split) => split,
        None if whole => Split::Train,
        // A part that was not wanted was not read.
        None if parts.val.is_some() => Split::Val,
        None => Split::Test,
    };
    let summary = parts.summary();
    let Some(Part { source, from }) = parts.part(split) else {
        let path = parts.path.clone();
        return Err(DataError::EmptyPart { path, split: wanted.unwrap_or(split) });
    };
    let split = (!whole).then_some(split);
    let own = PartSummary { split, images: source.len(), from: from.clone() };
    let set = EvaluationSet {
        source: source.clone(),
        split,
        shape: None,
        normalization: imagenet::normalization(),
        classes: vec![],
        summary: Summary { parts: vec![own], ..summary },
    };
    Ok(Chosen { path: parts.path, set, class_names: parts.class_names })
}

fn of_data_set(data: DataSet, wanted: Option<Split>) -> Result<Chosen, DataError> {
    let split = wanted.unwrap_or(Split::Val);
    let place = SPLITS.iter().position(|&known| known == split).unwrap_or(0);
    let source = [Some(&data.train), Some(&data.val), data.test.as_ref()][place];
    let path = PathBuf::from(&data.name);
    let Some(source) = source else { return Err(DataError::EmptyPart { path, split }) };
    let mut summary = data.summary;
    summary.parts.retain(|part| part.split == Some(split));
    let set = EvaluationSet {
        source: source.clone(),
        split: Some(split),
        shape: data.shape,
        normalization: data.normalization,
        classes: vec![],
        summary,
    };
    Ok(Chosen { path, set, class_names: data.class_names })
}

impl Chosen {
    /// The images with the labels of a model.
    fn of_model(self, model: &[String]) -> Result<EvaluationSet, DataError> {
        let Self { path, mut set, class_names } = self;
        let counts = counts(&*set.source, class_names.len());
        let mapped = classes::map(&class_names, model);
        let used = || (0..class_names.len()).filter(|&class| counts[class] > 0);
        let unknown: Vec<String> = used()
            .filter(|&class| mapped.places[class].is_none())
            .map(|class| class_names[class].clone())
            .collect();
        if !unknown.is_empty() {
            let (known, model) = (used().count() - unknown.len(), model.to_vec());
            return Err(DataError::UnknownClasses { path, unknown, known, model });
        }
        set.summary.warnings.extend(mapped.assumed);
        let mut present: Vec<usize> =
            used().filter_map(|class| mapped.places[class]).map(|place| place as usize).collect();
        present.sort_unstable();
        if present.len() < model.len() {
            set.summary.warnings.push(format!(
                "images of {} of the model's {}",
                present.len(),
                counted(model.len(), "class")
            ));
        }
        set.classes = present.into_iter().map(|class| model[class].clone()).collect();
        set.summary.classes.clone_from(&set.classes);
        let labels: Vec<u32> = mapped.places.iter().map(|place| place.unwrap_or(0)).collect();
        if labels.iter().enumerate().any(|(own, &label)| own != label as usize) {
            set.source = Arc::new(Relabelled { of: set.source, labels });
        }
        Ok(set)
    }
}

/// A source with other labels.
struct Relabelled {
    of: Arc<dyn Source>,
    /// The model's label for each of the source's labels.
    labels: Vec<u32>,
}

impl Source for Relabelled {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        self.of.sample(index)
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[self.of.label(index) as usize]
    }

    fn prefetch(&self, indices: &[usize]) {
        self.of.prefetch(indices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Images of two a class whose bytes are their class's name.
    fn add(root: &Path, classes: &[&str], count: usize) {
        for class in classes {
            fs::create_dir_all(root.join(class)).unwrap();
            for number in 0..count {
                fs::write(root.join(class).join(format!("{number}.png")), class).unwrap();
            }
        }
    }

    fn open(dir: &Path, part: Option<Split>, model: &[&str]) -> Result<EvaluationSet, DataError> {
        let model: Vec<String> = model.iter().map(|&name| name.to_owned()).collect();
        let spec = DataSpec::Folder { dir: dir.to_owned() };
        DataSet::open_for_evaluation(&spec, part, &model, &LoadOptions::default())
    }

    /// Number of images; each must have the label of its class in the model.
    fn checked(set: &EvaluationSet, model: &[&str]) -> usize {
        for index in 0..set.source.len() {
            let Sample::Encoded(encoded) = set.source.sample(index).unwrap() else { panic!() };
            let class = model[set.source.label(index) as usize];
            assert_eq!(encoded.bytes, class.as_bytes());
        }
        set.source.len()
    }

    const MODEL: [&str; 4] = ["ant", "cat", "dog", "fox"];

    #[test]
    fn classes_are_those_of_the_model_by_name() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), &["fox", "cat"], 20);
        let set = open(dir.path(), None, &MODEL).unwrap();
        assert_eq!((checked(&set, &MODEL), set.split), (40, None));
        assert_eq!(set.classes, ["cat", "fox"]);
        assert_eq!(set.summary.warnings, ["images of 2 of the model's 4 classes"]);
        assert!(set.summary.to_string().contains(": 40 images ("), "{}", set.summary);
        // A single class will do here.
        assert_eq!(open(&dir.path().join("."), None, &["fox", "cat"]).unwrap().classes.len(), 2);
        add(dir.path(), &["wolf"], 1);
        let said = open(dir.path(), None, &MODEL).err().unwrap().to_string();
        assert!(said.contains(
            "1 of 3 of its classes are none of the model's 4 (ant, cat, dog, fox): wolf"
        ));
    }

    #[test]
    fn the_part_is_the_one_asked_for_or_the_one_that_suits() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        add(&at("Val"), &["cat", "dog"], 3);
        let count =
            |part| open(dir.path(), part, &MODEL).map(|set| (checked(&set, &MODEL), set.split));
        // Validation images alone, as after a download of them.
        assert_eq!(count(None).unwrap(), (6, Some(Split::Val)));
        add(&at("Testing"), &["dog"], 4);
        assert_eq!(count(None).unwrap(), (6, Some(Split::Val)));
        assert_eq!(count(Some(Split::Test)).unwrap(), (4, Some(Split::Test)));
        let said = count(Some(Split::Train)).unwrap_err().to_string();
        assert!(said.contains("no training images"), "{said}");
        // Training images beside validation images.
        add(&at("training"), &["cat", "dog"], 7);
        assert_eq!(count(Some(Split::Train)).unwrap(), (14, Some(Split::Train)));
        fs::remove_dir_all(at("training")).unwrap();
        fs::remove_dir_all(at("Val")).unwrap();
        assert_eq!(count(None).unwrap(), (4, Some(Split::Test)));
        // Those that training would validate on.
        add(&at("train"), &["cat", "dog"], 30);
        assert_eq!(count(None).unwrap(), (5, Some(Split::Val)));
        assert_eq!(count(Some(Split::Train)).unwrap(), (55, Some(Split::Train)));
        let trained = DataSpec::Folder { dir: dir.path().to_owned() }.load().unwrap();
        let set = open(dir.path(), Some(Split::Val), &["cat", "dog"]).unwrap();
        for index in 0..5 {
            assert_eq!(set.source.sample(index).unwrap(), trained.val.sample(index).unwrap());
        }
        // Of a tree without splits, all images, or those.
        let flat =
            |part| open(&at("train"), part, &MODEL).map(|set| (checked(&set, &MODEL), set.split));
        assert_eq!(flat(None).unwrap(), (60, None));
        assert_eq!(flat(Some(Split::Val)).unwrap(), (5, Some(Split::Val)));
        assert!(flat(Some(Split::Test)).is_err());
    }

    #[test]
    fn sets_in_memory_have_parts_too() {
        let spec = DataSpec::FashionMnistMini;
        let model = spec.load().unwrap().class_names;
        let options = LoadOptions::default();
        let open =
            |part, model: &[String]| DataSet::open_for_evaluation(&spec, part, model, &options);
        let set = open(None, &model).unwrap();
        assert_eq!(
            (set.source.len(), set.split, set.shape),
            (1000, Some(Split::Val), Some([28, 28, 1]))
        );
        assert_eq!(set.classes, model);
        let mut turned = model.clone();
        turned.reverse();
        let test = open(Some(Split::Test), &model).unwrap().source;
        let mapped = open(Some(Split::Test), &turned).unwrap().source;
        assert!((0..1000).all(|index| test.label(index) + mapped.label(index) == 9));
        let numbers: Vec<String> = (0..10).map(|class| class.to_string()).collect();
        let set = open(None, &numbers).unwrap();
        assert!(set.summary.warnings[0].contains("no names"), "{:?}", set.summary);
        assert!(open(None, &numbers[..9]).is_err());
    }
}
