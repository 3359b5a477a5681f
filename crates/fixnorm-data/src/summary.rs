//! The line that says what was understood of a data set's names: parts, images, classes, source of labels.
//! Not here: finding it out (`folder.rs`, `tar.rs`, `parquet.rs`, …), looking into images (`check.rs`).

use std::fmt;

use serde::Serialize;

use crate::Split;
use crate::names::{counted, first_few};
use crate::split_names::SPLITS;

/// How a data set was understood. [`Display`](fmt::Display) gives one line without the warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Name of the data set.
    pub data: String,
    /// The parts that exist, in the order train, val, test.
    pub parts: Vec<PartSummary>,
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Source of the labels.
    pub labels: String,
    /// Unusual findings, each in a sentence: files left out, classes without images, names that were guessed.
    pub warnings: Vec<String>,
}

/// One part of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// Its purpose; none where the set is evaluated as a whole.
    pub split: Option<Split>,
    /// Number of images.
    pub images: usize,
    /// Where they are from: a directory, a number of shards, a share of the training images.
    pub from: String,
}

impl Summary {
    /// The summary of a data set whose parts are known: the number of images of each and where they are from.
    pub(crate) fn new(
        data: &str,
        parts: [Option<(usize, &str)>; 3],
        classes: &[String],
        labels: &str,
    ) -> Self {
        let part = |(split, part): (Split, Option<(usize, &str)>)| {
            let (images, from) = part?;
            Some(PartSummary { split: Some(split), images, from: from.to_owned() })
        };
        Self {
            data: data.to_owned(),
            parts: SPLITS.into_iter().zip(parts).filter_map(part).collect(),
            classes: classes.to_vec(),
            labels: labels.to_owned(),
            warnings: vec![],
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.data)?;
        for (number, part) in self.parts.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let noun = match part.split {
                Some(split) => format!("{} image", split.adjective()),
                None => "image".to_owned(),
            };
            write!(f, "{comma}{} ({})", counted(part.images, &noun), part.from)?;
        }
        let classes = counted(self.classes.len(), "class");
        write!(f, "; {classes} ({}); labels: {}", first_few(&self.classes), self.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_it_all() {
        let part = |split, images, from: &str| PartSummary { split, images, from: from.to_owned() };
        let summary = Summary {
            data: "folder:d".to_owned(),
            parts: vec![
                part(Some(Split::Train), 36, "Training"),
                part(Some(Split::Val), 1, "a twelfth of the training images"),
            ],
            classes: ["cat", "dog"].map(str::to_owned).to_vec(),
            labels: "directory names".to_owned(),
            warnings: vec!["not in the line".to_owned()],
        };
        assert_eq!(
            summary.to_string(),
            "folder:d: 36 training images (Training), 1 validation image (a twelfth of the training images); \
             2 classes (cat, dog); labels: directory names"
        );
    }
}
