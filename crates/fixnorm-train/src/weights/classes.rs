//! The final layer of a weights file for the classes of a data set: kept, reordered by name, or new.
//! Not here: matching names (`fixnorm-data`).

use fixnorm_data::map_classes;

/// How a final layer is used for the classes of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FinalLayer {
    /// As it is: both have the same classes in the same order.
    Kept,
    /// Both have the same classes. Entry i is the file's class that is class i of the data.
    Reordered(Vec<usize>),
    /// Not at all: the classes differ.
    New,
}

impl FinalLayer {
    /// The use of the final layer of a model of the classes `weights` for the classes `data`; and what was assumed where
    /// one of the two has no names.
    pub(crate) fn of(data: &[String], weights: &[String]) -> (Self, Option<String>) {
        let mapped = map_classes(data, weights);
        let rows: Option<Vec<usize>> =
            mapped.places.iter().map(|place| place.map(|place| place as usize)).collect();
        match rows.filter(|rows| is_permutation(rows, weights.len())) {
            None => (Self::New, None),
            Some(rows) if rows.is_sorted() => (Self::Kept, mapped.assumed),
            Some(rows) => (Self::Reordered(rows), mapped.assumed),
        }
    }
}

fn is_permutation(rows: &[usize], classes: usize) -> bool {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &[&str], weights: &[&str]) -> (FinalLayer, bool) {
        let list =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&n| n.to_owned()).collect() };
        let (layer, assumed) = FinalLayer::of(&list(data), &list(weights));
        (layer, assumed.is_some())
    }

    #[test]
    fn a_final_layer_is_kept_only_where_names_agree() {
        let names = ["cat", "dog", "fox"];
        assert_eq!(of(&names, &names), (FinalLayer::Kept, false));
        let reordered = FinalLayer::Reordered(vec![2, 0, 1]);
        assert_eq!(of(&["fox", "cat", "dog"], &names), (reordered, false));
        for other in [
            &["dog", "fox", "wolf"][..],
            &["Cat", "Dog", "Fox"],
            &["cat", "dog"],
            &["cat", "dog", "fox", "wolf"],
            &["0", "1"],
        ] {
            assert_eq!(of(other, &names), (FinalLayer::New, false), "{other:?}");
        }
        // A side without names is taken in its order, which is reported.
        assert_eq!(of(&names, &["0", "1", "2"]), (FinalLayer::Kept, true));
        assert_eq!(of(&["0", "1", "2"], &names), (FinalLayer::Kept, true));
    }
}
