//! Files that are in a data set's directories or shards and are no images of it: counted, to be named.
//! Not here: which names are left out (`names.rs`, `walk.rs`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why a file is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Reason {
    /// A hidden file with the name of an image, as `._x.jpg` of macOS.
    Hidden,
    /// A file with another ending, which is kept.
    Ending(String),
    /// A pipe, socket or device.
    Special,
    /// Beside the classes' directories instead of in one.
    NoClass,
    /// A link within a tar file to what is not in it.
    Link,
    /// A further image of a sample, with the ending behind its key: `seg.png`.
    Side(String),
    /// A name that occurs again later in the tar file.
    Replaced,
}

/// Files left out, by their reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut(BTreeMap<Reason, (usize, String)>);

impl LeftOut {
    /// Counts one more; the first of each reason is kept as an example.
    pub(crate) fn add(&mut self, reason: Reason, name: impl FnOnce() -> String) {
        self.0.entry(reason).or_insert_with(|| (0, name())).0 += 1;
    }

    pub(crate) fn merge(&mut self, other: LeftOut) {
        for (reason, (count, name)) in other.0 {
            self.0.entry(reason).or_insert((0, name)).0 += count;
        }
    }

    /// Number of files.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// All of it in a few words: `9 .bmp (train/a/0.bmp), 1 hidden (train/a/._0.jpg)`.
    pub(crate) fn words(&self) -> String {
        let one = |(reason, (count, name)): (&Reason, &(usize, String))| {
            let what = match reason {
                Reason::Hidden => "hidden".to_owned(),
                Reason::Ending(ending) if ending.is_empty() => "without an ending".to_owned(),
                Reason::Ending(ending) => format!(".{ending}"),
                Reason::Special => "no regular files".to_owned(),
                Reason::NoClass => "in no class directory".to_owned(),
                Reason::Link => "links".to_owned(),
                Reason::Side(ending) => format!(".{ending} beside another image of the sample"),
                Reason::Replaced => "replaced by a later one".to_owned(),
            };
            format!("{count} {what} ({name})")
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// A warning, where anything is left out.
    pub(crate) fn warning(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| format!("left out: {}", self.words()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_one_of_each_is_named() {
        let mut all = LeftOut::default();
        assert_eq!(all.warning(), None);
        all.add(Reason::Hidden, || "a/._0.jpg".to_owned());
        all.add(Reason::Ending("bmp".to_owned()), || "a/0.bmp".to_owned());
        let mut more = LeftOut::default();
        more.add(Reason::Ending("bmp".to_owned()), || "b/1.bmp".to_owned());
        all.merge(more);
        assert_eq!(all.count(), 3);
        assert_eq!(all.warning().unwrap(), "left out: 1 hidden (a/._0.jpg), 2 .bmp (a/0.bmp)");
    }
}
