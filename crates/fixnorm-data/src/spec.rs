//! Data sets by name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rand_chacha::rand_core::Rng;

use crate::rng::{Stream, stream};
use crate::source::{DataSet, Picture, Source};
use crate::{DataError, Normalization, embedded, idx, split};

/// The names a data set can have.
pub(crate) const FORMS: &str = "fashion-mnist-mini, fashion-mnist[:DIR], idx:DIR, synthetic:CxHxW";

/// Fashion-MNIST's classes in the order of their labels.
pub(crate) const FASHION_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// A data set by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSpec {
    /// 6,000 training, 1,000 validation and 1,000 test pictures of Fashion-MNIST, embedded.
    FashionMnistMini,
    /// The full Fashion-MNIST: 55,000, 5,000 and the official 10,000.
    FashionMnist {
        /// Where its four files are; the usual places if left out.
        dir: Option<PathBuf>,
    },
    /// Any four files with Fashion-MNIST's names; one twelfth of the training set validates.
    Idx {
        /// Where they are.
        dir: PathBuf,
    },
    /// 2,048 training and 256 validation pictures of noise in 1,000 classes, to measure speed with.
    Synthetic {
        /// Height, width, channels.
        shape: [usize; 3],
    },
}

impl FromStr for DataSpec {
    type Err = DataError;

    fn from_str(given: &str) -> Result<Self, DataError> {
        let (name, argument) = match given.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (given, None),
        };
        let wrong = |expected| DataError::Spec { given: given.to_owned(), expected };
        match (name, argument) {
            ("fashion-mnist-mini", None) => Ok(DataSpec::FashionMnistMini),
            ("fashion-mnist-mini", Some(_)) => {
                Err(wrong("fashion-mnist-mini, without a directory: it is embedded"))
            }
            ("fashion-mnist", None) => Ok(DataSpec::FashionMnist { dir: None }),
            ("fashion-mnist", Some(dir)) if !dir.is_empty() => {
                Ok(DataSpec::FashionMnist { dir: Some(dir.into()) })
            }
            ("idx", Some(dir)) if !dir.is_empty() => Ok(DataSpec::Idx { dir: dir.into() }),
            ("fashion-mnist", _) => Err(wrong("fashion-mnist or fashion-mnist:DIR")),
            ("idx", _) => Err(wrong("idx:DIR")),
            ("synthetic", argument) => {
                let form = || wrong("synthetic:CxHxW, for example synthetic:3x224x224");
                let sizes = argument.ok_or_else(form)?.split('x').map(str::parse);
                match sizes.collect::<Result<Vec<usize>, _>>().map_err(|_| form())?[..] {
                    [c, h, w] if c > 0 && h > 0 && w > 0 => {
                        Ok(DataSpec::Synthetic { shape: [h, w, c] })
                    }
                    _ => Err(form()),
                }
            }
            _ => {
                let names = ["fashion-mnist-mini", "fashion-mnist", "idx:DIR", "synthetic:CxHxW"];
                let alike = |known: &&str| strsim::jaro_winkler(name, known);
                Err(DataError::UnknownData {
                    given: given.to_owned(),
                    nearest: names
                        .into_iter()
                        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
                        .unwrap_or_default(),
                })
            }
        }
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataSpec::FashionMnistMini => write!(f, "fashion-mnist-mini"),
            DataSpec::FashionMnist { dir: None } => write!(f, "fashion-mnist"),
            DataSpec::FashionMnist { dir: Some(dir) } => {
                write!(f, "fashion-mnist:{}", dir.display())
            }
            DataSpec::Idx { dir } => write!(f, "idx:{}", dir.display()),
            DataSpec::Synthetic { shape: [h, w, c] } => write!(f, "synthetic:{c}x{h}x{w}"),
        }
    }
}

impl DataSpec {
    /// Reads the data set.
    ///
    /// # Errors
    /// Files that are missing or not what they should be.
    pub fn load(&self) -> Result<DataSet, DataError> {
        match self {
            DataSpec::FashionMnistMini => embedded::fashion_mnist_mini(),
            DataSpec::FashionMnist { dir } => {
                let dir = match dir {
                    Some(dir) => dir.clone(),
                    None => find_fashion_mnist()?,
                };
                let names = FASHION_CLASSES.map(str::to_owned).to_vec();
                let data = load_idx(&dir, Some(names))?;
                Ok(DataSet {
                    normalization: fashion_normalization(),
                    name: self.to_string(),
                    ..data
                })
            }
            DataSpec::Idx { dir } => load_idx(dir, None),
            DataSpec::Synthetic { shape } => Ok(synthetic(*shape, self.to_string())),
        }
    }
}

/// Mean and standard deviation of Fashion-MNIST's training pictures.
pub(crate) fn fashion_normalization() -> Normalization {
    Normalization { mean: vec![0.2860], std: vec![0.3530] }
}

fn find_fashion_mnist() -> Result<PathBuf, DataError> {
    let root = std::env::var_os("FIXNORM_DATA").map(PathBuf::from);
    let from_root = root.into_iter().flat_map(|root| [root.join("fashion-mnist"), root]);
    let looked: Vec<PathBuf> = from_root.chain([PathBuf::from("data/fashion-mnist")]).collect();
    let has_files = |dir: &&PathBuf| {
        ["", ".gz"].iter().any(|suffix| dir.join(format!("{TRAIN_IMAGES}{suffix}")).exists())
    };
    match looked.iter().find(has_files) {
        Some(dir) => Ok(dir.clone()),
        None => Err(DataError::NotFound { looked }),
    }
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// One twelfth of the training pictures validates: 5,000 of 60,000.
const VAL_SHARE: usize = 12;

fn load_idx(dir: &Path, class_names: Option<Vec<String>>) -> Result<DataSet, DataError> {
    let read = |images: &str, labels: &str, classes| {
        let (image_file, label_file) = (dir.join(images), dir.join(labels));
        let (images, labels) = (idx::read(&image_file)?, idx::read(&label_file)?);
        let shape = images.shape.get(1..).unwrap_or_default().to_vec();
        let pictures = idx::pictures(images, labels, [&image_file, &label_file], classes)?;
        Ok::<_, DataError>((pictures, shape))
    };
    let known = class_names.as_ref().map(Vec::len);
    let (all, sides) = read(TRAIN_IMAGES, TRAIN_LABELS, known)?;
    let labels = all.labels();
    let class_names = class_names.unwrap_or_else(|| {
        let classes = labels.iter().max().map_or(0, |&label| label + 1);
        (0..classes).map(|class| class.to_string()).collect()
    });
    let has_test =
        ["", ".gz"].iter().any(|suffix| dir.join(format!("{TEST_IMAGES}{suffix}")).exists());
    let test = match has_test {
        false => None,
        true => {
            let (test, test_sides) = read(TEST_IMAGES, TEST_LABELS, Some(class_names.len()))?;
            if test_sides != sides {
                return Err(DataError::Format {
                    path: dir.join(TEST_IMAGES),
                    expected: format!("pictures of the training set's size {sides:?}"),
                    found: format!("{test_sides:?}"),
                });
            }
            Some(Arc::new(test) as Arc<dyn Source>)
        }
    };
    let (train, val) = split::balanced(&labels, labels.len() / VAL_SHARE);
    if val.is_empty() {
        return Err(DataError::Format {
            path: dir.join(TRAIN_IMAGES),
            expected: format!("at least {VAL_SHARE} pictures"),
            found: labels.len().to_string(),
        });
    }
    let train = all.subset(train);
    Ok(DataSet {
        name: format!("idx:{}", dir.display()),
        normalization: train.statistics(),
        train: Arc::new(train),
        val: Arc::new(all.subset(val)),
        test,
        shape: [sides[0], sides[1], sides.get(2).copied().unwrap_or(1)],
        class_names,
    })
}

/// Pictures of noise, made when read.
struct Noise {
    shape: [usize; 3],
    first: u64,
    len: usize,
}

const SYNTHETIC_CLASSES: usize = 1000;

impl Source for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn picture(&self, index: usize) -> Result<Picture, DataError> {
        let [height, width, channels] = self.shape;
        let mut pixels = vec![0; height * width * channels];
        stream(0, Stream::Synthetic, 0, self.first + index as u64).fill_bytes(&mut pixels);
        Ok(Picture { height, width, channels, pixels })
    }

    fn label(&self, index: usize) -> u32 {
        (index % SYNTHETIC_CLASSES) as u32
    }
}

fn synthetic(shape: [usize; 3], name: String) -> DataSet {
    let part = |first, len| Arc::new(Noise { shape, first, len });
    DataSet {
        name,
        train: part(0, 2048),
        val: part(2048, 256),
        test: None,
        shape,
        class_names: (0..SYNTHETIC_CLASSES).map(|class| class.to_string()).collect(),
        normalization: Normalization { mean: vec![0.5; shape[2]], std: vec![0.25; shape[2]] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_round_trip() {
        for name in [
            "fashion-mnist-mini",
            "fashion-mnist",
            "fashion-mnist:/a b/c",
            "idx:here",
            "synthetic:3x8x9",
        ] {
            assert_eq!(name.parse::<DataSpec>().unwrap().to_string(), name);
        }
        let shape = DataSpec::Synthetic { shape: [8, 9, 3] };
        assert_eq!("synthetic:3x8x9".parse::<DataSpec>().unwrap(), shape);
    }

    #[test]
    fn wrong_names_say_what_is_right() {
        for (name, part) in [
            ("fashion-mist", "did you mean `fashion-mnist`?"),
            ("cifar", "Data: fashion-mnist-mini, fashion-mnist[:DIR]"),
            ("idx:", "expected idx:DIR"),
            ("idx", "expected idx:DIR"),
            ("synthetic:3x0x4", "synthetic:CxHxW"),
            ("synthetic:3x4", "synthetic:CxHxW"),
            ("fashion-mnist-mini:x", "embedded"),
        ] {
            let error = name.parse::<DataSpec>().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }

    fn write_idx(path: &Path, shape: &[u32], values: &[u8]) {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(values);
        fs::write(path, bytes).unwrap();
    }

    /// A directory of `train` and `test` pictures of 2×3 in `classes` classes.
    fn directory(train: u32, test: u32, classes: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (count, images, labels) in
            [(train, TRAIN_IMAGES, TRAIN_LABELS), (test, TEST_IMAGES, TEST_LABELS)]
        {
            if count > 0 {
                let pixels: Vec<u8> = (0..count * 6).map(|i| (i % 251) as u8).collect();
                write_idx(&dir.path().join(images), &[count, 2, 3], &pixels);
                let values: Vec<u8> = (0..count).map(|i| (i % classes) as u8).collect();
                write_idx(&dir.path().join(labels), &[count], &values);
            }
        }
        dir
    }

    fn load(dir: &tempfile::TempDir) -> Result<DataSet, DataError> {
        let dir = dir.path().to_owned();
        DataSpec::Idx { dir }.load()
    }

    #[test]
    fn idx_directory_is_split_and_measured() {
        let data = load(&directory(240, 12, 4)).unwrap();
        assert_eq!((data.train.len(), data.val.len()), (220, 20));
        assert_eq!(data.test.unwrap().len(), 12);
        assert_eq!((data.shape, data.class_names.len()), ([2, 3, 1], 4));
        assert!((data.normalization.mean[0] - 0.49).abs() < 0.02);
        assert!(load(&directory(240, 0, 4)).unwrap().test.is_none());
    }

    #[test]
    fn test_labels_that_training_never_saw_are_refused() {
        let dir = directory(240, 12, 4);
        write_idx(&dir.path().join(TEST_LABELS), &[12], &[0, 1, 2, 3, 0, 1, 2, 9, 0, 1, 2, 3]);
        let error = load(&dir).err().unwrap().to_string();
        assert!(
            error.ends_with("label 9 of picture 7 is out of range, there are 4 classes"),
            "{error}"
        );
    }

    #[test]
    fn missing_files_are_named() {
        let dir = directory(240, 12, 4);
        fs::remove_file(dir.path().join(TRAIN_LABELS)).unwrap();
        let error = load(&dir).err().unwrap().to_string();
        assert!(error.starts_with("cannot read") && error.contains(TRAIN_LABELS), "{error}");
        let error = load(&directory(5, 0, 2)).err().unwrap().to_string();
        assert!(error.contains("at least 12 pictures"), "{error}");
    }

    #[test]
    fn noise_is_repeatable_and_differs_between_pictures() {
        let data = "synthetic:3x4x5".parse::<DataSpec>().unwrap().load().unwrap();
        let first = data.train.picture(0).unwrap();
        assert_eq!(first, data.train.picture(0).unwrap());
        assert_ne!(first, data.train.picture(1).unwrap());
        assert_ne!(first, data.val.picture(0).unwrap());
        assert_eq!((first.height, first.width, first.channels), (4, 5, 3));
    }
}
