//! Which names of files and directories mean training, validation or test images.
//! Not here: which files and directories are looked at (`folder.rs`, `shards.rs`, `tar.rs`).

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DataError;

/// The purpose of some of a data set's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images that a model learns from.
    Train,
    /// Images that choices are made on.
    Val,
    /// Images that the result is measured on.
    Test,
}

/// All of them, in the order in which they are listed.
pub(crate) const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

impl Split {
    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    /// The word for it in a sentence.
    pub(crate) fn adjective(self) -> &'static str {
        match self {
            Split::Train => "training",
            Split::Val => "validation",
            Split::Test => "test",
        }
    }

    /// The words that name it, the usual one first.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train", "training", "trainval", "trn"],
            // As Hugging Face's `datasets` reads them.
            Split::Val => &["val", "validation", "valid", "validate", "dev"],
            Split::Test => &["test", "testing", "eval", "evaluation", "holdout", "heldout", "tst"],
        }
    }

    /// The split that a word means, and the word.
    fn of_word(word: &str) -> Option<Named> {
        let own = |split: Split| split.words().iter().find(|own| **own == word);
        SPLITS.into_iter().find_map(|split| Some(Named { split, word: own(split)? }))
    }
}

/// A split, and the word that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) split: Split,
    pub(crate) word: &'static str,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(given: &str) -> Result<Self, DataError> {
        of_directory(OsStr::new(given)).map(|named| named.split).ok_or_else(|| DataError::Spec {
            given: given.to_owned(),
            expected: "train, val or test",
        })
    }
}

/// Words that may stand beside the word of a split in the name of a directory: `test_images`, `TrainSet`.
const FILLERS: [&str; 22] = [
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "jpg", "jpeg",
    "png", "image", "images", "photo", "photos", "sample", "samples", "split", "part", "folder",
    "dir",
];

/// The words of a name in lower case: letters of other alphabets are letters, digits and signs separate, and
/// so does the capital of `TestImages`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous_lower = false;
    for letter in name.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && previous_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphabetic()) {
            word.extend(letter.to_lowercase());
        }
        previous_lower = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A word without a filler glued to it: `testset` is `test`.
fn bare(word: &str) -> &str {
    let cut = FILLERS.iter().filter_map(|filler| word.strip_suffix(filler));
    cut.into_iter().find(|rest| Split::of_word(rest).is_some()).unwrap_or(word)
}

/// The split that a directory's name means, where it means nothing else: `Training`, `val2017`, `test_images`,
/// `hold-out`, but not `test_tube`.
pub(crate) fn of_directory(name: &OsStr) -> Option<Named> {
    let words = words(name.to_str()?);
    let telling = words.iter().map(|word| bare(word)).filter(|word| !FILLERS.contains(word));
    Split::of_word(&telling.collect::<String>())
}

/// What the name of a shard says about its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    One(Named),
    /// Words of several splits: `train-test-00.tar`.
    Several(Split, Split),
}

/// The split that a word of a file's name means: `imagenet-train-0001.tar`, `x_testing.parquet`.
pub(crate) fn of_file(name: &OsStr) -> Said {
    let name = name.to_string_lossy();
    let words = words(&name);
    let pairs = words.windows(2).map(concat).filter(|pair| pair.starts_with("h"));
    let single = words.iter().map(|word| bare(word).to_owned());
    let mut found: Vec<Named> =
        single.chain(pairs).filter_map(|word| Split::of_word(&word)).collect();
    found.sort_unstable();
    found.dedup_by_key(|named| named.split);
    match found[..] {
        [] => Said::Nothing,
        [only] => Said::One(only),
        [first, second, ..] => Said::Several(first.split, second.split),
    }
}

fn concat(pair: &[String]) -> String {
    pair.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> Option<Split> {
        of_directory(OsStr::new(name)).map(|named| named.split)
    }

    #[test]
    fn directories_of_splits_are_recognized_in_any_spelling() {
        for (split, names) in [
            (
                Split::Train,
                &["train", "Train", "TRAIN", "training", "Training_Set", "train2017"][..],
            ),
            (Split::Train, &["trainval", "TrainImages", "train-data", "trainset", "01_train"]),
            (Split::Val, &["val", "Valid", "VALIDATION", "dev", "DevSet", "val_256", "imgs_val"]),
            (Split::Test, &["test", "Testing", "TEST1", "eval", "Evaluation", "test images"]),
            (Split::Test, &["hold-out", "HoldOut", "held_out", "holdout", "testset"]),
        ] {
            names.iter().for_each(|name| assert_eq!(directory(name), Some(split), "{name}"));
        }
        for name in ["test_tube", "bullet train", "trainer", "value", "device", "images", "", "42"]
        {
            assert_eq!(directory(name), None, "{name}");
        }
        // Letters, so `ntest` and `été` are one word each.
        assert_eq!((directory("entraîn"), directory("ñtest")), (None, None));
    }

    #[test]
    fn a_word_of_a_file_name_is_enough() {
        let file = |name: &str| of_file(OsStr::new(name));
        for (name, split) in [
            ("imagenet1k-train-0000.tar", Split::Train),
            ("x-dev-0.tar", Split::Val),
            ("X_EVAL.tar", Split::Test),
            ("setTesting01.parquet", Split::Test),
            ("valset-1.tar", Split::Val),
            ("a-hold-out-1.tar", Split::Test),
            ("validation-00000-of-00001-0a1b2c3d4e5f.parquet", Split::Val),
        ] {
            let Said::One(named) = file(name) else { panic!("{name}: {:?}", file(name)) };
            assert_eq!(named.split, split, "{name}");
        }
        for name in ["00.tar", "latest-0.tar", "interval.tar", "restrained.parquet"] {
            assert_eq!(file(name), Said::Nothing, "{name}");
        }
        assert_eq!(file("train-test-0.tar"), Said::Several(Split::Train, Split::Test));
    }

    #[test]
    fn a_split_is_given_by_any_of_its_words() {
        assert_eq!("Validation".parse::<Split>().unwrap(), Split::Val);
        assert!("quiz".parse::<Split>().unwrap_err().to_string().contains("train, val or test"));
    }
}
