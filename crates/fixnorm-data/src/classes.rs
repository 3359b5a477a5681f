//! The classes of one list by their names in another.
//! Not here: lists in files (`names.rs`), ImageNet's names (`imagenet.rs`).

use std::collections::HashMap;

use crate::imagenet;

/// More classes than any set has: a label beyond is a mistake, not a reason to make up names for all below.
pub(crate) const MOST_CLASSES: u64 = 1 << 20;

/// Whether the names are no more than the numbers of their classes.
pub(crate) fn are_numbers(names: &[String]) -> bool {
    names.iter().enumerate().all(|(number, name)| *name == number.to_string())
}

/// The place of each name in `known`; none where it has no such name, or several and not as many here.
pub(crate) fn places(names: &[String], known: &[String]) -> Vec<Option<u32>> {
    let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
    for (place, name) in (0..).zip(known) {
        by_name.entry(name).or_default().push(place);
    }
    let mut count: HashMap<&str, usize> = HashMap::new();
    names.iter().for_each(|name| *count.entry(name).or_default() += 1);
    // A name that both have twice, as ImageNet's `crane`: the first is the first.
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut places = vec![];
    for name in names.iter().map(String::as_str) {
        let own = by_name.get(name).filter(|own| own.len() == count[name]);
        let nth = seen.entry(name).or_default();
        places.push(own.and_then(|own| own.get(*nth).copied()));
        *nth += 1;
    }
    places
}

/// The classes of a data set as a model has them.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The model's number for each class of the data set; none where the model does not have it.
    pub places: Vec<Option<u32>>,
    /// The assumption made where names alone do not decide.
    pub assumed: Option<String>,
}

/// Maps classes by name. A side that has only numbers is mapped by number: where the model's classes have no
/// names, both must have as many.
pub fn map(data: &[String], model: &[String]) -> Mapped {
    let by_number = |why: &str| {
        let places = (0..data.len() as u32).map(|n| ((n as usize) < model.len()).then_some(n));
        Mapped { places: places.collect(), assumed: Some(why.to_owned()) }
    };
    if data == model {
        return Mapped { places: (0..data.len() as u32).map(Some).collect(), assumed: None };
    }
    if let Some(places) = imagenet::places_of_synsets(data)
        && imagenet::class_names().eq(model.iter().map(String::as_str))
    {
        return Mapped { places: places.into_iter().map(Some).collect(), assumed: None };
    }
    match (are_numbers(data), are_numbers(model)) {
        (true, false) => by_number(
            "the data's labels have no names and are taken as numbers of the model's classes",
        ),
        (false, true) if data.len() == model.len() => by_number(
            "the model's classes have no names: the data's classes are taken in their order",
        ),
        _ => Mapped { places: places(data, model), assumed: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_are_found_in_any_order() {
        let known = list(&["cat", "dog", "fox", "crane", "crane"]);
        assert_eq!(places(&list(&["fox", "wolf", "cat"]), &known), [Some(2), None, Some(0)]);
        // Of two with one name, either may be meant.
        assert_eq!(places(&list(&["crane"]), &known), [None]);
        assert_eq!(places(&list(&["crane", "crane"]), &known), [Some(3), Some(4)]);
    }

    #[test]
    fn a_side_without_names_is_mapped_by_number() {
        let (numbers, names) = (list(&["0", "1"]), list(&["cat", "dog"]));
        let mapped = map(&numbers, &list(&["cat", "dog", "fox"]));
        assert_eq!(mapped.places, [Some(0), Some(1)]);
        assert!(mapped.assumed.unwrap().contains("labels have no names"));
        let mapped = map(&names, &numbers);
        assert_eq!(mapped.places, [Some(0), Some(1)]);
        assert!(mapped.assumed.unwrap().contains("model's classes have no names"));
        assert_eq!(map(&names, &list(&["0", "1", "2"])).places, [None, None]);
        assert_eq!(map(&list(&["0", "1", "2"]), &names).places[2], None);
        let mapped = map(&list(&["dog", "cat"]), &names);
        assert_eq!((mapped.places, mapped.assumed), (vec![Some(1), Some(0)], None));
    }

    #[test]
    fn synsets_are_classes_of_a_model_of_imagenet() {
        let model: Vec<String> = imagenet::class_names().map(str::to_owned).collect();
        // The second crane, and tench.
        let mapped = map(&list(&["n03126707", "n01440764"]), &model);
        assert_eq!(mapped.places, [Some(517), Some(0)]);
        assert_eq!(map(&list(&["n03126707", "cat"]), &model).places, [None, None]);
    }
}
