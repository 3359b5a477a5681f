//! ImageNet-1k: its classes and channel statistics, which images of any size are
//! normalized with. Where the tables come from: `assets/imagenet`.
//! Not here: reading its files (`folder.rs`, `tar.rs`, `parquet.rs`).

use crate::Normalization;

/// Mean and standard deviation of each channel, as torchvision and timm have them.
pub const STATISTICS: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The 1,000 classes, in the order of the labels.
pub fn class_names() -> impl Iterator<Item = &'static str> {
    include_str!("../assets/imagenet/classes.txt").lines()
}

/// The 1,000 synsets that ImageNet's directories are called by, in the order of the labels.
fn synsets() -> impl Iterator<Item = &'static str> {
    include_str!("../assets/imagenet/synsets.txt").lines()
}

pub(crate) fn normalization() -> Normalization {
    let (mean, std) = STATISTICS;
    Normalization { mean: mean.to_vec(), std: std.to_vec() }
}

/// The number of each class, where all of them are synsets of ImageNet-1k.
pub(crate) fn places_of_synsets(classes: &[String]) -> Option<Vec<u32>> {
    // The list is sorted.
    let known: Vec<&str> = synsets().collect();
    let place = |class: &String| known.binary_search(&class.as_str()).ok().map(|p| p as u32);
    classes.iter().map(place).collect::<Option<Vec<_>>>().filter(|places| !places.is_empty())
}

/// Names for people: where all of them are synsets of ImageNet-1k, the synsets' words.
pub(crate) fn named(classes: Vec<String>) -> Vec<String> {
    let words: std::collections::HashMap<_, _> = synsets().zip(class_names()).collect();
    let known: Option<Vec<_>> = classes.iter().map(|class| words.get(class.as_str())).collect();
    match known {
        Some(known) if !known.is_empty() => {
            known.into_iter().map(|&name| name.to_owned()).collect()
        }
        _ => classes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synsets_are_named_where_all_are_known() {
        let of = |classes: &[&str]| named(classes.iter().map(|&class| class.to_owned()).collect());
        assert_eq!(of(&["n01440764", "n15075141"])[0], "tench, Tinca tinca");
        assert_eq!(of(&["n01440764", "cat"]), ["n01440764", "cat"]);
        let synsets: Vec<_> = synsets().collect();
        assert!(synsets.len() == 1000 && synsets.is_sorted());
        assert_eq!(class_names().count(), 1000);
    }
}
