//! Data sets by name.
//! Not here: how each is read (`embedded.rs`, `fashion.rs`, `directory.rs`, `cifar.rs`, `folder.rs`, `tar.rs`,
//! `parquet.rs`, `synthetic.rs`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::synthetic::synthetic;
use crate::{
    DataError, DataSet, LoadOptions, cifar, directory, embedded, fashion, folder, parquet, tar,
};

/// The names a data set can have.
pub const FORMS: &str = "fashion-mnist-mini, fashion-mnist[:DIR], cifar10[:DIR], folder:DIR, tar:GLOB, \
                         parquet:GLOB, idx:DIR, synthetic:CxHxW";

/// A data set by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSpec {
    /// 6,000 training, 1,000 validation and 1,000 test images of Fashion-MNIST, embedded.
    FashionMnistMini,
    /// The full Fashion-MNIST: 55,000, 5,000 and the official 10,000.
    FashionMnist {
        /// Where its four files are; the usual places if left out.
        dir: Option<PathBuf>,
    },
    /// Any four files with Fashion-MNIST's names; one twelfth of the training set validates. The two
    /// test files may be left out.
    Idx {
        /// Where they are.
        dir: PathBuf,
    },
    /// CIFAR-10 in its binary version: 45,000, 5,000 and the official 10,000.
    Cifar10 {
        /// Where its files are; the usual places if left out.
        dir: Option<PathBuf>,
    },
    /// A tree of image files, `train/CLASS/*.jpg`, `val/CLASS/…` and `test/CLASS/…`; only the first must be.
    Folder {
        /// Its root.
        dir: PathBuf,
    },
    /// WebDataset shards.
    Tar {
        /// A pattern of files, or their directory.
        pattern: PathBuf,
    },
    /// Parquet files with a column of images, as Hugging Face's `datasets` writes them.
    Parquet {
        /// A pattern of files, or their directory.
        pattern: PathBuf,
    },
    /// 2,048 training and 256 validation images of noise in 1,000 classes, to measure speed with.
    Synthetic {
        /// 1 for grey, 3 for RGB, or any other number.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
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
            ("cifar10", None) => Ok(DataSpec::Cifar10 { dir: None }),
            ("cifar10", Some(dir)) if !dir.is_empty() => {
                Ok(DataSpec::Cifar10 { dir: Some(dir.into()) })
            }
            ("folder", Some(dir)) if !dir.is_empty() => Ok(DataSpec::Folder { dir: dir.into() }),
            ("tar", Some(glob)) if !glob.is_empty() => Ok(DataSpec::Tar { pattern: glob.into() }),
            ("parquet", Some(glob)) if !glob.is_empty() => {
                Ok(DataSpec::Parquet { pattern: glob.into() })
            }
            ("fashion-mnist", _) => Err(wrong("fashion-mnist or fashion-mnist:DIR")),
            ("cifar10", _) => Err(wrong("cifar10 or cifar10:DIR")),
            ("folder", _) => Err(wrong("folder:DIR")),
            ("tar", _) => Err(wrong("tar:GLOB or tar:DIR")),
            ("parquet", _) => Err(wrong("parquet:GLOB or parquet:DIR")),
            ("idx", _) => Err(wrong("idx:DIR")),
            ("synthetic", sizes) => {
                let form =
                    "synthetic:CxHxW, for example synthetic:3x224x224, of at most 2^28 values";
                sizes.and_then(synthetic_sizes).ok_or_else(|| wrong(form))
            }
            _ => {
                let alike = |form: &&str| {
                    let known = form.split([':', '[']).next().unwrap_or_default();
                    strsim::jaro_winkler(name, known)
                };
                Err(DataError::UnknownData {
                    given: given.to_owned(),
                    nearest: FORMS
                        .split(", ")
                        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
                        .unwrap_or_default(),
                })
            }
        }
    }
}

/// The largest image of noise: more is a slip of the hand, and would end in a failed allocation.
const MAX_VALUES: usize = 1 << 28;

fn synthetic_sizes(sizes: &str) -> Option<DataSpec> {
    let sizes: Vec<usize> =
        sizes.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let [channels, height, width] = sizes[..] else { return None };
    let values = channels.checked_mul(height)?.checked_mul(width)?;
    (1..=MAX_VALUES).contains(&values).then_some(DataSpec::Synthetic { channels, height, width })
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
            DataSpec::Cifar10 { dir: None } => write!(f, "cifar10"),
            DataSpec::Cifar10 { dir: Some(dir) } => write!(f, "cifar10:{}", dir.display()),
            DataSpec::Folder { dir } => write!(f, "folder:{}", dir.display()),
            DataSpec::Tar { pattern } => write!(f, "tar:{}", pattern.display()),
            DataSpec::Parquet { pattern } => write!(f, "parquet:{}", pattern.display()),
            DataSpec::Synthetic { channels, height, width } => {
                write!(f, "synthetic:{channels}x{height}x{width}")
            }
        }
    }
}

impl DataSpec {
    /// Reads the data set.
    ///
    /// # Errors
    /// Files that are missing or not what they should be.
    pub fn load(&self) -> Result<DataSet, DataError> {
        self.load_with(&LoadOptions::default())
    }

    /// The same; `options` say where indices are kept and who hears of their making.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(&self, options: &LoadOptions<'_>) -> Result<DataSet, DataError> {
        let name = self.to_string();
        match self {
            DataSpec::FashionMnistMini => embedded::fashion_mnist_mini(),
            DataSpec::FashionMnist { dir } => {
                let dir = match dir {
                    Some(dir) => dir.clone(),
                    None => fashion::find()?,
                };
                fashion::load(&dir, name)
            }
            DataSpec::Cifar10 { dir } => {
                let dir = match dir {
                    Some(dir) => dir.clone(),
                    None => cifar::find()?,
                };
                cifar::load(&dir, name)
            }
            DataSpec::Folder { dir } => folder::load(dir, name),
            DataSpec::Tar { pattern } => tar::load(pattern, name, options),
            DataSpec::Parquet { pattern } => parquet::load(pattern, name, options),
            DataSpec::Idx { dir } => directory::load(dir, None),
            &DataSpec::Synthetic { channels, height, width } => {
                Ok(synthetic([height, width, channels], name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            "fashion-mnist-mini",
            "fashion-mnist",
            "fashion-mnist:/a b/c",
            "idx:here",
            "cifar10",
            "cifar10:/c",
            "folder:a/b",
            "tar:a/{train,val}-*.tar",
            "parquet:a/*.parquet",
            "synthetic:3x8x9",
        ] {
            assert_eq!(name.parse::<DataSpec>().unwrap().to_string(), name);
        }
        let noise = DataSpec::Synthetic { channels: 3, height: 8, width: 9 };
        assert_eq!("synthetic:3x8x9".parse::<DataSpec>().unwrap(), noise);
        assert_eq!(noise.load().unwrap().shape, Some([8, 9, 3]));
    }

    #[test]
    fn wrong_names_say_what_is_right() {
        for (name, part) in [
            ("fashion-mist", "did you mean `fashion-mnist[:DIR]`?"),
            ("fashion-mnist-mimi", "did you mean `fashion-mnist-mini`?"),
            ("syntetic:3x4x5", "did you mean `synthetic:CxHxW`?"),
            ("idxx:here", "did you mean `idx:DIR`?"),
            ("", "unknown data ``"),
            ("cifar", "Data: fashion-mnist-mini, fashion-mnist[:DIR]"),
            ("cifar", "did you mean `cifar10[:DIR]`?"),
            ("folders:x", "did you mean `folder:DIR`?"),
            ("webdataset:x", "parquet:GLOB"),
            ("cifar10:", "expected cifar10 or cifar10:DIR"),
            ("folder", "expected folder:DIR"),
            ("tar:", "expected tar:GLOB or tar:DIR"),
            ("parquet", "expected parquet:GLOB or parquet:DIR"),
            ("fashion-mnist:", "expected fashion-mnist or fashion-mnist:DIR"),
            ("idx:", "expected idx:DIR"),
            ("idx", "expected idx:DIR"),
            ("synthetic:3x0x4", "synthetic:CxHxW"),
            ("synthetic:3x4", "synthetic:CxHxW"),
            ("synthetic", "synthetic:CxHxW"),
            ("synthetic:3x-4x5", "synthetic:CxHxW"),
            ("synthetic:3x99999x99999", "at most 2^28 values"),
            ("synthetic:4294967296x4294967296x2", "at most 2^28 values"),
            ("fashion-mnist-mini:x", "embedded"),
        ] {
            let error = name.parse::<DataSpec>().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }
}
