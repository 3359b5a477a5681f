//! Where data sets lie that are named without a directory, and where they are put.
//! Not here: what makes a set (`fashion.rs`, `cifar.rs`).

use std::path::{Path, PathBuf};

use crate::DataError;

/// `$FIXNORM_DATA`, where it is set.
fn root() -> Option<PathBuf> {
    std::env::var_os("FIXNORM_DATA").filter(|root| !root.is_empty()).map(PathBuf::from)
}

/// The first of the usual places that has the data set: `$FIXNORM_DATA`, its directory `name`,
/// `data/name`.
///
/// # Errors
/// [`DataError::NotFound`] names them.
pub(crate) fn find(name: &'static str, has: impl Fn(&Path) -> bool) -> Result<PathBuf, DataError> {
    find_in(root(), Path::new("data"), name, has)
}

/// Where a data set is put, and looked for: `name` in `$FIXNORM_DATA`, or else in `data`.
pub(crate) fn own(name: &str) -> PathBuf {
    root().unwrap_or_else(|| "data".into()).join(name)
}

fn find_in(
    root: Option<PathBuf>,
    data: &Path,
    name: &'static str,
    has: impl Fn(&Path) -> bool,
) -> Result<PathBuf, DataError> {
    let from_root = root.into_iter().flat_map(|root| [root.clone(), root.join(name)]);
    let looked: Vec<PathBuf> = from_root.chain([data.join(name)]).collect();
    match looked.iter().find(|dir| has(dir)) {
        Some(dir) => Ok(dir.clone()),
        None => Err(DataError::NotFound { name, looked }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_usual_places_are_searched_in_order_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (root, data) = (dir.path().join("root"), dir.path().join("data"));
        let has = |dir: &Path| dir.join("it").exists();
        let find = |root: Option<&Path>| find_in(root.map(Path::to_owned), &data, "cifar10", has);

        let said = find(Some(&root)).unwrap_err().to_string();
        let places = [root.clone(), root.join("cifar10"), data.join("cifar10")];
        for place in &places {
            assert!(said.contains(&place.display().to_string()), "{said}");
        }
        assert!(said.contains("cifar10:DIR"), "{said}");
        assert!(said.contains("fixnorm data fetch cifar10"), "{said}");
        assert!(!find(None).unwrap_err().to_string().contains("root"));

        // From the last place to the first: each one goes before those that were there.
        for place in places.iter().rev() {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("it"), "").unwrap();
            assert_eq!(find(Some(&root)).unwrap(), *place);
        }
        assert_eq!(find(None).unwrap(), places[2]);
    }
}
