//! Names of classes that files of others hold beside their tensors.
//! Not here: what fixnorm's own files hold (`fixnorm-train`).

use std::collections::{BTreeMap, HashMap};

use pytorch_reader::PickleValue;

/// Keys of lists of names, or of maps between names and indices.
const KEYS: [&str; 9] = [
    "class_names",
    "classes",
    "CLASSES",
    "categories",
    "class_to_idx",
    "label2id",
    "idx_to_class",
    "id2label",
    "label_names",
];

/// Keys of dictionaries that the names may lie in.
const PLACES: [&str; 5] = ["hyper_parameters", "args", "meta", "dataset_meta", "config"];

/// The names in a safetensors file's metadata, whose values are JSON.
pub(super) fn from_strings<'a>(entry: impl Fn(&str) -> Option<&'a String>) -> Option<Vec<String>> {
    use serde_json::Value;
    KEYS.iter().find_map(|key| match serde_json::from_str(entry(key)?).ok()? {
        Value::Array(names) => {
            let names = names.into_iter().map(|name| name.as_str().map(str::to_owned));
            names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
        }
        Value::Object(entries) => ordered(entries.into_iter().map(|(key, value)| {
            let index = |value: i64| usize::try_from(value).ok();
            match value {
                Value::String(name) => Some((key.parse().ok()?, name)),
                value => Some((index(value.as_i64()?)?, key)),
            }
        })),
        _ => None,
    })
}

/// The names in a PyTorch checkpoint.
pub(super) fn from_pickle(root: &PickleValue) -> Option<Vec<String>> {
    let PickleValue::Dict(root) = root else { return None };
    let inside = PLACES.iter().filter_map(|place| match root.get(*place) {
        Some(PickleValue::Dict(inside)) => Some(inside),
        _ => None,
    });
    std::iter::once(root).chain(inside).find_map(from_dict)
}

fn from_dict(dict: &HashMap<String, PickleValue>) -> Option<Vec<String>> {
    KEYS.iter().find_map(|key| match dict.get(*key)? {
        PickleValue::List(names) => {
            let names = names.iter().map(|name| match name {
                PickleValue::String(name) => Some(name.clone()),
                _ => None,
            });
            names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
        }
        PickleValue::Dict(entries) => ordered(entries.iter().map(|(key, value)| match value {
            PickleValue::String(name) => Some((key.parse().ok()?, name.clone())),
            PickleValue::Int(index) => Some((usize::try_from(*index).ok()?, key.clone())),
            _ => None,
        })),
        _ => None,
    })
}

/// The names in the order of their indices, if these are 0, 1, 2 and so on.
fn ordered(entries: impl Iterator<Item = Option<(usize, String)>>) -> Option<Vec<String>> {
    let entries: Vec<(usize, String)> = entries.collect::<Option<_>>()?;
    let count = entries.len();
    let names: BTreeMap<usize, String> = entries.into_iter().collect();
    let complete = count > 0 && names.len() == count && names.keys().copied().eq(0..count);
    complete.then(|| names.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, json: &str) -> Option<Vec<String>> {
        let entries = HashMap::from([(key.to_owned(), json.to_owned())]);
        from_strings(|key| entries.get(key))
    }

    #[test]
    fn lists_and_maps_of_names_are_read() {
        let names = Some(vec!["cat".to_owned(), "dog".to_owned()]);
        assert_eq!(found("classes", r#"["cat", "dog"]"#), names);
        assert_eq!(found("class_to_idx", r#"{"dog": 1, "cat": 0}"#), names);
        assert_eq!(found("id2label", r#"{"1": "dog", "0": "cat"}"#), names);
        for (key, other) in [
            ("format", r#"["cat", "dog"]"#),
            ("classes", "10"),
            ("classes", "[]"),
            ("classes", "[1, 2]"),
            ("classes", "cat dog"),
            ("class_to_idx", r#"{"cat": 0, "dog": 2}"#),
            ("class_to_idx", r#"{"cat": 0, "dog": 0}"#),
            ("class_to_idx", r#"{"cat": -1}"#),
        ] {
            assert_eq!(found(key, other), None, "{key}: {other}");
        }
    }
}
