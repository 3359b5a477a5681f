//! A class-balanced validation set taken from a training set.
//! Not here: sets whose authors or users say which images validate.

use crate::rng::{self, Stream};

/// One twelfth of the training images validates where nobody says which: 5,000 of 60,000.
pub(crate) const VAL_SHARE: usize = 12;

/// Indices for training and for validation, `val` of them, from images with these `labels`.
///
/// Each class gives its share of `val`, rounded down; what is missing then comes from the classes in
/// order. Every class keeps an image to train on: where `val` is more than the others, they are all that
/// validate. The choice is fixed: it does not depend on a run's seed, so that runs with different seeds are
/// judged on the same images. Both lists are ascending.
pub fn balanced(labels: &[u32], val: usize) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut by_class = vec![vec![]; classes];
    for (index, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(index);
    }
    let mut random = rng::stream(0, Stream::Split, 0, 0);
    let mut chosen = vec![];
    let mut rest = vec![];
    for own in &mut by_class {
        rng::shuffle(own, &mut random);
        let share = (val * own.len() / labels.len()).min(own.len().saturating_sub(1));
        chosen.extend(own.drain(..share));
        rest.push(std::mem::take(own));
    }
    let missing = val.saturating_sub(chosen.len());
    let spare: Vec<usize> = (0..labels.len())
        .flat_map(|round| {
            let spared = rest.iter().filter(move |own| own.len() > round + 1);
            spared.map(move |own| own[round])
        })
        .take(missing)
        .collect();
    chosen.extend(spare);
    chosen.sort_unstable();
    let mut is_val = vec![false; labels.len()];
    chosen.iter().for_each(|&index| is_val[index] = true);
    let train = (0..labels.len()).filter(|&index| !is_val[index]).collect();
    (train, chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_is_balanced_disjoint_and_complete() {
        let labels: Vec<u32> = (0..1200).map(|i| (i * 7 % 10) as u32).collect();
        let (train, val) = balanced(&labels, 100);
        assert_eq!((train.len(), val.len()), (1100, 100));
        for class in 0..10 {
            assert_eq!(val.iter().filter(|&&i| labels[i] == class).count(), 10);
        }
        let mut all: Vec<usize> = train.iter().chain(&val).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..1200).collect::<Vec<_>>());
        assert_eq!(balanced(&labels, 100), (train, val));
    }

    #[test]
    fn sixty_thousand_give_five_hundred_of_each_class() {
        let labels: Vec<u32> = (0..60_000).map(|i| (i * 7919 % 60_000 / 6_000) as u32).collect();
        let (train, val) = balanced(&labels, 5_000);
        assert_eq!((train.len(), val.len()), (55_000, 5_000));
        for class in 0..10 {
            assert_eq!(val.iter().filter(|&&i| labels[i] == class).count(), 500);
        }
    }

    #[test]
    fn uneven_classes_still_give_the_number_asked_for() {
        let labels: Vec<u32> =
            (0..101).map(|i| u32::from(i % 3 == 0) + u32::from(i % 9 == 0)).collect();
        for val in [0, 1, 7, 98] {
            let (train, chosen) = balanced(&labels, val);
            assert_eq!((train.len(), chosen.len()), (101 - val, val));
        }
    }

    #[test]
    fn every_class_keeps_an_image_to_train_on() {
        let single: Vec<u32> = (0..24).collect();
        assert_eq!(balanced(&single, 2), ((0..24).collect(), vec![]));
        // Twenty classes of one image before one of four.
        let labels: Vec<u32> = (0..20).chain([20; 4]).collect();
        let (train, val) = balanced(&labels, 2);
        assert_eq!(
            (train.len(), val.iter().map(|&i| labels[i]).collect::<Vec<_>>()),
            (22, vec![20; 2])
        );
        for val in [5, 100, 101, 1000] {
            let labels: Vec<u32> = (0..101).map(|i| u32::from(i % 3 == 0)).collect();
            let (train, chosen) = balanced(&labels, val);
            assert_eq!(train.len() + chosen.len(), 101);
            assert!((0..2).all(|class| train.iter().any(|&i| labels[i] == class)), "{val}");
        }
    }
}
