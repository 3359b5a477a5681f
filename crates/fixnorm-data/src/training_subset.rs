//! A class-balanced part of the training images, and labels made wrong on purpose: `?per_class=N&wrong_labels=F` behind the
//! name of any data set. Validation and test images stay as they are, and so does the normalization.
//! Not here: a validation set taken from training images (`split.rs`), the names of data sets (`spec.rs`).

use std::fmt;
use std::sync::Arc;

use crate::parts::counts;
use crate::rng::{self, Stream};
use crate::source::Subset;
use crate::{DataError, DataSet, Sample, Source, Split};

/// Which training images are used, and how many of their labels are wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingSubset {
    /// Images of each class; all of them if none. With the same seed fewer images are a part of more.
    pub per_class: Option<usize>,
    /// Decides which images. It does not depend on a run's seed, so that runs train on the same images.
    pub subset_seed: u64,
    /// Share of the images of each class that get the label of another class, at least 0 and below 1.
    pub wrong_labels: f64,
    /// Decides which labels are wrong and what they are. An image that has a wrong label has the same one in every subset.
    pub wrong_labels_seed: u64,
}

impl TrainingSubset {
    const KEYS: [&str; 4] = ["per_class", "subset_seed", "wrong_labels", "wrong_labels_seed"];

    /// Separates these keys from the rest of a data set's name, which may have others behind the same `?`. Returns none
    /// where there is none of them.
    ///
    /// # Errors
    /// [`DataError::Spec`] for a value that the key cannot have.
    pub(crate) fn split_off(given: &str) -> Result<Option<(Self, String)>, DataError> {
        let Some((name, query)) = given.rsplit_once('?') else { return Ok(None) };
        let key_of = |entry: &&str| entry.split_once('=').map_or("", |(key, _)| key).to_owned();
        let (own, others): (Vec<&str>, Vec<&str>) =
            query.split('&').partition(|entry| Self::KEYS.contains(&key_of(entry).as_str()));
        if own.is_empty() {
            return Ok(None);
        }
        let mut subset = Self::default();
        for entry in own {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            subset
                .set(key, value)
                .map_err(|expected| DataError::Spec { given: given.to_owned(), expected })?;
        }
        let rest = match others[..] {
            [] => name.to_owned(),
            _ => format!("{name}?{}", others.join("&")),
        };
        Ok(Some((subset, rest)))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let seed = || value.parse().map_err(|_| "a whole number as a seed");
        match key {
            "per_class" => {
                let count = value.parse().ok().filter(|&count| count > 0);
                self.per_class = Some(count.ok_or("per_class=N with a whole number above 0")?);
            }
            "subset_seed" => self.subset_seed = seed()?,
            "wrong_labels_seed" => self.wrong_labels_seed = seed()?,
            _ => {
                let share = value.parse().ok().filter(|share| (0.0..1.0).contains(share));
                self.wrong_labels = share.ok_or("wrong_labels=F with F at least 0 and below 1")?;
            }
        }
        Ok(())
    }

    /// The data set with these training images.
    ///
    /// # Errors
    /// [`DataError::TooFewOfClass`] if a class has fewer images than asked for.
    pub(crate) fn of(&self, mut data: DataSet) -> Result<DataSet, DataError> {
        let indices = self.indices(&data)?;
        let labels = self.labels(&*data.train, &indices, data.class_names.len());
        let changed = indices.iter().zip(&labels);
        let wrong = changed.filter(|(index, label)| data.train.label(**index) != **label).count();
        if let Some(train) =
            data.summary.parts.iter_mut().find(|part| part.split == Some(Split::Train))
        {
            if let Some(count) = self.per_class {
                train.from = format!("{count} a class of {} of {}", train.images, train.from);
            }
            if wrong > 0 {
                train.from = format!("{}, {wrong} with a wrong label", train.from);
            }
            train.images = indices.len();
        }
        let of = Arc::new(Subset { of: data.train, indices });
        data.train = Arc::new(Labelled { of, labels });
        data.summary.data.clone_from(&data.name);
        Ok(data)
    }

    /// The images, ascending.
    fn indices(&self, data: &DataSet) -> Result<Vec<usize>, DataError> {
        let train = &*data.train;
        let Some(wanted) = self.per_class else { return Ok((0..train.len()).collect()) };
        let counts = counts(train, data.class_names.len());
        if let Some(class) = counts.iter().position(|&count| count < wanted) {
            return Err(DataError::TooFewOfClass {
                data: data.name.clone(),
                class: data.class_names[class].clone(),
                found: counts[class],
                wanted,
            });
        }
        let mut by_class = vec![vec![]; counts.len()];
        for index in 0..train.len() {
            by_class[train.label(index) as usize].push(index);
        }
        let mut chosen = vec![];
        for (class, mut own) in by_class.into_iter().enumerate() {
            let mut random = rng::stream(self.subset_seed, Stream::Subset, 0, class as u64);
            rng::shuffle(&mut own, &mut random);
            chosen.extend(own.into_iter().take(wanted));
        }
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// The labels of these images, some of them wrong.
    fn labels(&self, train: &dyn Source, indices: &[usize], classes: usize) -> Vec<u32> {
        let mut labels: Vec<u32> = indices.iter().map(|&index| train.label(index)).collect();
        if self.wrong_labels == 0.0 || classes < 2 {
            return labels;
        }
        // Each image draws its place in the order by which labels become wrong, and its wrong label.
        let mut drawn = vec![vec![]; classes];
        for (position, (&index, &label)) in indices.iter().zip(&labels).enumerate() {
            let mut random =
                rng::stream(self.wrong_labels_seed, Stream::WrongLabels, 0, index as u64);
            let place = rng::uniform(&mut random);
            let other = rng::below(classes - 1, &mut random) as u32;
            let wrong = if other < label { other } else { other + 1 };
            drawn[label as usize].push((place, position, wrong));
        }
        for mut own in drawn {
            own.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = (self.wrong_labels * own.len() as f64).round() as usize;
            for &(_, position, wrong) in &own[..count] {
                labels[position] = wrong;
            }
        }
        labels
    }
}

impl fmt::Display for TrainingSubset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = |seed: u64| (seed != 0).then(|| seed.to_string());
        let share = (self.wrong_labels != 0.0).then(|| self.wrong_labels.to_string());
        let values = [
            self.per_class.map(|count| count.to_string()),
            seed(self.subset_seed),
            share,
            seed(self.wrong_labels_seed),
        ];
        let given = Self::KEYS.iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
        let given: Vec<String> = given.map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&given.join("&"))
    }
}

/// A source with a label of its own for each image.
struct Labelled {
    of: Arc<dyn Source>,
    labels: Vec<u32>,
}

impl Source for Labelled {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        self.of.sample(index)
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn prefetch(&self, indices: &[usize]) {
        self.of.prefetch(indices);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::DataSpec;

    fn load(query: &str) -> DataSet {
        format!("fashion-mnist-mini?{query}").parse::<DataSpec>().unwrap().load().unwrap()
    }

    /// Pixels and label of every training image.
    fn images(data: &DataSet) -> BTreeSet<(Vec<u8>, u32)> {
        let train = &data.train;
        (0..train.len()).map(|i| (train.image(i).unwrap().pixels, train.label(i))).collect()
    }

    #[test]
    fn subsets_are_balanced_deterministic_and_nested() {
        let (small, large) = (load("per_class=20"), load("per_class=50"));
        assert_eq!(small.train.len(), 200);
        assert_eq!(counts(&*small.train, 10), [20; 10]);
        assert_eq!(images(&small), images(&load("per_class=20")));
        assert!(images(&small).is_subset(&images(&large)));
        let other = load("per_class=20&subset_seed=1");
        assert_eq!(counts(&*other.train, 10), [20; 10]);
        assert_ne!(images(&other), images(&small));
        assert!(small.summary.to_string().contains("200 training images (20 a class of 6000 of"));
    }

    #[test]
    fn only_training_images_change() {
        let whole = "fashion-mnist-mini".parse::<DataSpec>().unwrap().load().unwrap();
        let part = load("per_class=20&wrong_labels=0.5");
        assert_eq!(part.normalization, whole.normalization);
        let (test, whole_test) = (part.test.unwrap(), whole.test.unwrap());
        for (a, b) in [(&part.val, &whole.val), (&test, &whole_test)] {
            assert_eq!(a.len(), b.len());
            assert!((0..a.len()).all(|i| a.label(i) == b.label(i)));
        }
    }

    #[test]
    fn wrong_labels_have_the_share_asked_for_in_every_class() {
        let (right, wrong) = (load("per_class=50"), load("per_class=50&wrong_labels=0.2"));
        let changed = |wrong: &DataSet, class: u32| {
            let own = (0..right.train.len()).filter(|&i| right.train.label(i) == class);
            own.filter(|&i| wrong.train.label(i) != class).count()
        };
        assert!((0..10).all(|class| changed(&wrong, class) == 10));
        let labels = |data: &DataSet| -> Vec<u32> {
            (0..data.train.len()).map(|i| data.train.label(i)).collect()
        };
        assert!(labels(&wrong).iter().collect::<BTreeSet<_>>().len() == 10);
        assert_eq!(labels(&wrong), labels(&load("per_class=50&wrong_labels=0.2")));
        let other = load("per_class=50&wrong_labels=0.2&wrong_labels_seed=1");
        assert_ne!(labels(&wrong), labels(&other));
        assert!((0..10).all(|class| changed(&other, class) == 10));
        // More of them are wrong, those among them.
        let more = labels(&load("per_class=50&wrong_labels=0.4"));
        let rights = labels(&right);
        let all = rights.iter().zip(labels(&wrong)).zip(&more);
        assert!(all.into_iter().all(|((right, wrong), more)| *right == wrong || wrong == *more));
        assert!(wrong.summary.to_string().contains(", 100 with a wrong label"));
    }

    #[test]
    fn fingerprints_tell_subsets_apart() {
        let all = [
            "per_class=50",
            "per_class=51",
            "per_class=50&subset_seed=1",
            "per_class=50&wrong_labels=0.2",
            "per_class=50&wrong_labels=0.2&wrong_labels_seed=1",
            "wrong_labels=0.2",
        ];
        let prints: BTreeSet<String> = all.iter().map(|query| load(query).fingerprint()).collect();
        assert_eq!(prints.len(), all.len());
        assert_eq!(load("per_class=50").fingerprint(), load("per_class=50").fingerprint());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let parse = |query: &str| format!("fashion-mnist-mini?{query}").parse::<DataSpec>();
        for wrong in [
            "per_class=0",
            "per_class=x",
            "wrong_labels=1",
            "wrong_labels=-0.1",
            "wrong_labels=nan",
            "per_class=5&subset_seed=-1",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.is_usage(), "{wrong}: {error}");
        }
        let error = parse("per_class=601").unwrap().load().err().unwrap();
        let said = error.to_string();
        assert!(said.contains("T-shirt/top has 600 training images, and per_class=601"), "{said}");
        assert!(error.is_usage());
    }
}
