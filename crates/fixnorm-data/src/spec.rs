//! Data sets by name.
//! Not here: how each is read (`embedded.rs`, `fashion.rs`, `directory.rs`, `cifar.rs`, `folder.rs`, `tar.rs`,
//! `parquet.rs`, `synthetic.rs`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::parts::{Parts, Purpose};
use crate::synthetic::synthetic;
use crate::{
    DataError, DataSet, LoadOptions, TrainingSubset, cifar, directory, embedded, fashion, folder,
    parquet, tar,
};

/// The names a data set can have.
pub const FORMS: &str = "fashion-mnist-mini, fashion-mnist[:DIR], cifar10[:DIR], folder:DIR, tar:GLOB, \
                         parquet:GLOB, idx:DIR, synthetic:CxHxW";

/// A data set by name.
#[derive(Clone, Debug, PartialEq)]
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
        /// The image and the label of a sample, where names alone do not decide.
        columns: Columns,
    },
    /// Parquet files with a column of images, as Hugging Face's `datasets` writes them.
    Parquet {
        /// A pattern of files, or their directory.
        pattern: PathBuf,
        /// Which columns are image and label, where that is not clear.
        columns: Columns,
    },
    /// Another one with a part of its training images, or with wrong labels.
    Subset {
        /// The other one.
        of: Box<DataSpec>,
        /// The part of it.
        subset: TrainingSubset,
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

/// Image and label of a sample by their names, as `?image=NAME&label=NAME` behind a pattern gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Columns {
    /// Column of a Parquet file, or ending of a tar file's members behind their key: `jpg`, `left.png`.
    pub image: Option<String>,
    /// Column of a Parquet file; of a tar file `cls`, another ending such as `txt`, or a key of the `.json`.
    pub label: Option<String>,
}

impl Columns {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = [("image", &self.image), ("label", &self.label)];
        let given = given.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (number, (key, value)) in given.enumerate() {
            write!(f, "{}{key}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// A pattern and the columns behind its last `?`. What follows a `?` without a `=` is a part of the pattern.
fn with_columns(given: &str, argument: &str) -> Result<(String, Columns), DataError> {
    let Some((pattern, query)) = argument.rsplit_once('?').filter(|(_, query)| {
        query.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphabetic()))
    }) else {
        return Ok((argument.to_owned(), Columns::default()));
    };
    let mut columns = Columns::default();
    for entry in query.split('&') {
        let column = match entry.split_once('=') {
            Some(("image", _)) => &mut columns.image,
            Some(("label", _)) => &mut columns.label,
            _ => {
                return Err(wrong(
                    given,
                    "?image=NAME, ?label=NAME or ?image=NAME&label=NAME at the end",
                ));
            }
        };
        let value = entry.split_once('=').map(|(_, value)| value.to_owned());
        *column = value.filter(|value| !value.is_empty());
        if column.is_none() {
            return Err(wrong(given, "a name behind ?image= and ?label="));
        }
    }
    Ok((pattern.to_owned(), columns))
}

/// A path as a user writes it: no shell replaces a `~` behind a colon.
fn path_of(given: &str, argument: &str) -> Result<PathBuf, DataError> {
    let Some(rest) = argument.strip_prefix('~') else { return Ok(argument.into()) };
    if !(rest.is_empty() || rest.starts_with('/')) {
        return Err(wrong(
            given,
            "~/DIR, a path in your home directory, or ./~NAME for a file that is called so",
        ));
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.ok_or_else(|| wrong(given, "a path without `~`: HOME is not set"))?;
    Ok(home.join(rest.trim_start_matches('/')))
}

fn wrong(given: &str, expected: &'static str) -> DataError {
    DataError::Spec { given: given.to_owned(), expected }
}

impl FromStr for DataSpec {
    type Err = DataError;

    fn from_str(given: &str) -> Result<Self, DataError> {
        if let Some((subset, name)) = TrainingSubset::split_off(given)? {
            return Ok(DataSpec::Subset { of: Box::new(name.parse()?), subset });
        }
        let (name, argument) = match given.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (given, None),
        };
        let wrong = |expected| wrong(given, expected);
        let filled = argument.filter(|argument| !argument.is_empty());
        let path = |form| path_of(given, filled.ok_or_else(|| wrong(form))?);
        let pattern = |form| {
            let (pattern, columns) = with_columns(given, filled.ok_or_else(|| wrong(form))?)?;
            if pattern.is_empty() {
                return Err(wrong(form));
            }
            Ok((path_of(given, &pattern)?, columns))
        };
        match name {
            "fashion-mnist-mini" if argument.is_some() => {
                Err(wrong("fashion-mnist-mini, without a directory: it is embedded"))
            }
            "fashion-mnist-mini" => Ok(DataSpec::FashionMnistMini),
            "fashion-mnist" if argument.is_none() => Ok(DataSpec::FashionMnist { dir: None }),
            "fashion-mnist" => {
                let dir = path("fashion-mnist or fashion-mnist:DIR")?;
                Ok(DataSpec::FashionMnist { dir: Some(dir) })
            }
            "cifar10" if argument.is_none() => Ok(DataSpec::Cifar10 { dir: None }),
            "cifar10" => Ok(DataSpec::Cifar10 { dir: Some(path("cifar10 or cifar10:DIR")?) }),
            "idx" => Ok(DataSpec::Idx { dir: path("idx:DIR")? }),
            "folder" => Ok(DataSpec::Folder { dir: path("folder:DIR")? }),
            "tar" => {
                let (pattern, columns) = pattern("tar:GLOB or tar:DIR")?;
                Ok(DataSpec::Tar { pattern, columns })
            }
            "parquet" => {
                let (pattern, columns) = pattern("parquet:GLOB or parquet:DIR")?;
                Ok(DataSpec::Parquet { pattern, columns })
            }
            "synthetic" => {
                let form =
                    "synthetic:CxHxW, for example synthetic:3x224x224, of at most 2^28 values";
                argument.and_then(synthetic_sizes).ok_or_else(|| wrong(form))
            }
            _ => Err(unknown(given, name)),
        }
    }
}

fn unknown(given: &str, name: &str) -> DataError {
    // A directory without its form, as other programs take it.
    if std::path::Path::new(given).is_dir() {
        return wrong(
            given,
            "a form of data before the directory: folder:DIR, tar:DIR, parquet:DIR or idx:DIR",
        );
    }
    let alike = |form: &&str| {
        let known = form.split([':', '[']).next().unwrap_or_default();
        strsim::jaro_winkler(name, known)
    };
    DataError::UnknownData {
        given: given.to_owned(),
        nearest: FORMS.split(", ").max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap_or_default(),
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
            DataSpec::Tar { pattern, columns } => write!(f, "tar:{}{columns}", pattern.display()),
            DataSpec::Parquet { pattern, columns } => {
                write!(f, "parquet:{}{columns}", pattern.display())
            }
            DataSpec::Subset { of, subset } => {
                let of = of.to_string();
                let join = if of.contains('?') { '&' } else { '?' };
                write!(f, "{of}{join}{subset}")
            }
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
        match self.read(Purpose::Training, options)? {
            Loaded::Parts(parts) => parts.data_set(),
            Loaded::DataSet(data) => Ok(data),
        }
    }

    /// Reads the parts that a purpose needs; a set that is read as a whole is read in full.
    pub(crate) fn read(
        &self,
        purpose: Purpose,
        options: &LoadOptions<'_>,
    ) -> Result<Loaded, DataError> {
        let name = self.to_string();
        let data = match self {
            DataSpec::Folder { dir } => return folder::load(dir, name, purpose).map(Loaded::Parts),
            DataSpec::Tar { pattern, columns } => {
                return tar::load(pattern, columns, name, purpose, options).map(Loaded::Parts);
            }
            DataSpec::Parquet { pattern, columns } => {
                return parquet::load(pattern, columns, name, purpose, options).map(Loaded::Parts);
            }
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
            DataSpec::Idx { dir } => directory::load(dir, None),
            // Which images of a class are taken is known where all are.
            DataSpec::Subset { of, subset } => {
                subset.of(DataSet { name, ..of.load_with(options)? })
            }
            &DataSpec::Synthetic { channels, height, width } => {
                Ok(synthetic([height, width, channels], name))
            }
        };
        data.map(Loaded::DataSet)
    }
}

/// A data set as its form gives it.
pub(crate) enum Loaded {
    /// Parts, of which only those wanted were read.
    Parts(Parts),
    /// All of it.
    DataSet(DataSet),
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
            "tar:a/x-00?.tar",
            "tar:a?image=left.jpg&label=json",
            "parquet:a/x-0?.parquet?label=fine_label",
            "synthetic:3x8x9",
            "fashion-mnist?per_class=200",
            "cifar10:/c?per_class=20&subset_seed=3&wrong_labels=0.2&wrong_labels_seed=4",
            "parquet:a/x-0?.parquet?label=fine_label&per_class=5",
            "folder:a/b?wrong_labels=0.25",
        ] {
            assert_eq!(name.parse::<DataSpec>().unwrap().to_string(), name);
        }
        let noise = DataSpec::Synthetic { channels: 3, height: 8, width: 9 };
        assert_eq!("synthetic:3x8x9".parse::<DataSpec>().unwrap(), noise);
        assert_eq!(noise.load().unwrap().shape, Some([8, 9, 3]));
    }

    #[test]
    fn columns_stand_behind_the_last_question_mark() {
        let spec = "parquet:a/x-0?.parquet?label=fine_label&image=img".parse().unwrap();
        let DataSpec::Parquet { pattern, columns } = spec else { panic!("{spec}") };
        assert_eq!(pattern, PathBuf::from("a/x-0?.parquet"));
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(columns, Columns { image: named("img"), label: named("fine_label") });
        let said = |name: &str| name.parse::<DataSpec>().unwrap_err().to_string();
        assert!(
            said("parquet:a?column=b").contains("?image=NAME"),
            "{}",
            said("parquet:a?column=b")
        );
        assert!(said("tar:a?label=").contains("a name behind"));
        assert!(said("tar:?label=a").contains("tar:GLOB"));
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let home = std::env::home_dir().unwrap();
        let DataSpec::Folder { dir } = "folder:~/a/b".parse().unwrap() else { panic!() };
        assert_eq!(dir, home.join("a/b"));
        let DataSpec::Tar { pattern, .. } = "tar:~/a/*.tar".parse().unwrap() else { panic!() };
        assert_eq!(pattern, home.join("a/*.tar"));
        let DataSpec::Idx { dir } = "idx:~".parse().unwrap() else { panic!() };
        assert_eq!(dir, home);
        let said = "folder:~somebody/a".parse::<DataSpec>().unwrap_err();
        assert!(said.is_usage() && said.to_string().contains("home directory"), "{said}");
        assert!("folder:a/~/b".parse::<DataSpec>().unwrap().to_string().ends_with("a/~/b"));
    }

    #[test]
    fn a_directory_without_its_form_is_no_unknown_name() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().to_str().unwrap().parse::<DataSpec>().unwrap_err().to_string();
        assert!(said.contains("folder:DIR"), "{said}");
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
