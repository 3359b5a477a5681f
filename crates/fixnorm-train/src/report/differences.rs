//! The table of runs: their results, and those settings in which they differ.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::figure::Table;
use super::outcome::{RESULTS, state};
use crate::run_dir::History;

/// Digits and characters of an array beyond which it is cut.
const MOST: usize = 60;

/// A column for each run: how it ended, its results with their differences from the first run's, then every setting
/// that is not the same in all runs.
pub(super) fn table(runs: &[(String, &History)]) -> Table {
    let names = runs.iter().map(|(name, _)| name.clone());
    let head = std::iter::once(String::new()).chain(names).collect();
    let states = runs.iter().map(|(_, run)| state(run));
    let mut rows = vec![std::iter::once("state".to_owned()).chain(states).collect()];
    for quantity in &RESULTS {
        let values: Vec<Option<f64>> = runs.iter().map(|(_, run)| (quantity.of)(run)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let first = values[0].filter(|_| quantity.compared);
        let cells = values
            .iter()
            .enumerate()
            .map(|(index, value)| result(*value, first.filter(|_| index > 0), quantity.digits));
        rows.push(std::iter::once(quantity.name.to_owned()).chain(cells).collect());
    }
    let plans: Vec<BTreeMap<String, String>> = runs.iter().map(|(_, run)| settings(run)).collect();
    rows.extend(differing(&plans));
    Table { head, rows }
}

/// A value, and in parentheses its difference from that of the first run.
fn result(value: Option<f64>, first: Option<f64>, digits: usize) -> String {
    match (value, first) {
        (None, _) => "–".to_owned(),
        (Some(value), Some(first)) => format!("{value:.digits$} ({:+.digits$})", value - first),
        (Some(value), None) => format!("{value:.digits$}"),
    }
}

/// Rows of those keys whose values are not the same in all plans.
fn differing(plans: &[BTreeMap<String, String>]) -> Vec<Vec<String>> {
    let keys: BTreeSet<&String> = plans.iter().flat_map(BTreeMap::keys).collect();
    let differs = |key: &&String| plans.iter().any(|plan| plan.get(*key) != plans[0].get(*key));
    let cell = |plan: &BTreeMap<String, String>, key: &String| {
        plan.get(key).map_or_else(|| "–".to_owned(), String::clone)
    };
    let row = |key: &String| {
        let cells = plans.iter().map(|plan| cell(plan, key));
        std::iter::once(key.clone()).chain(cells).collect()
    };
    keys.into_iter().filter(differs).map(row).collect()
}

/// Every value of a plan by its key; those of the recipe without `recipe.`, as `--set` takes them.
fn settings(run: &History) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(plan) = Value::try_from(&run.plan) {
        flatten("", &plan, &mut found);
    }
    found
}

fn flatten(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, found);
            }
        }
        value => {
            let text = match value {
                Value::String(text) if !text.is_empty() => text.clone(),
                value => value.to_string(),
            };
            let short = match text.char_indices().nth(MOST) {
                Some((end, _)) if value.is_array() => format!("{}…", &text[..end]),
                _ => text,
            };
            found.insert(key.strip_prefix("recipe.").unwrap_or(key).to_owned(), short);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        flatten("", &Value::Table(toml::from_str(text).unwrap()), &mut found);
        found
    }

    #[test]
    fn settings_that_are_the_same_are_left_out() {
        let a = flat("[recipe]\nmodel = \"resnet8\"\n[recipe.optimizer]\nlr = 0.1\nmomentum = 0.9");
        let b = flat(
            "[recipe]\nmodel = \"resnet8\"\ninit = \"\"\n[recipe.optimizer]\nlr = 0.25\nmomentum = 0.9",
        );
        let rows = differing(&[a.clone(), b]);
        assert_eq!(rows, [["init", "–", "\"\""], ["optimizer.lr", "0.1", "0.25"]]);
        assert!(differing(&[a.clone(), a]).is_empty());
    }

    #[test]
    fn results_stand_beside_their_difference_from_the_first_run() {
        assert_eq!(result(Some(0.5), None, 4), "0.5000");
        assert_eq!(result(Some(0.5), Some(0.75), 4), "0.5000 (-0.2500)");
        assert_eq!(result(None, Some(0.75), 4), "–");
    }
}
