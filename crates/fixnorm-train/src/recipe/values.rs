//! The value of one key as people write it: numbers of any form, names without quotes, old forms of none.
//! Not here: which keys there are (`keys.rs`).

use toml::{Table, Value};

use crate::recipe::{Recipe, RecipeError};

/// Key and value of `key=value`. A value that is not TOML is a string: names need no quotes.
pub(crate) fn parse_assignment(assignment: &str) -> Result<(&str, Value), RecipeError> {
    let (key, text) =
        assignment.split_once('=').ok_or_else(|| RecipeError::Override(assignment.to_owned()))?;
    let (key, text) = (key.trim(), text.trim());
    if text.parse::<i128>().is_ok_and(|number| i64::try_from(number).is_err()) {
        return Err(RecipeError::Value {
            key: key.to_owned(),
            value: text.to_owned(),
            message: format!("expected a whole number between {} and {}", i64::MIN, i64::MAX),
        });
    }
    let value = toml_value(text).or_else(|| toml_value(&with_toml_numbers(text)));
    Ok((key, value.unwrap_or_else(|| Value::String(text.to_owned()))))
}

fn toml_value(text: &str) -> Option<Value> {
    let table = format!("value = {text}").parse::<Table>();
    table.ok().and_then(|mut table| table.remove("value"))
}

/// The text with its numbers as TOML has them: people and other programs also write `.1`, `1.`, `1.e-3` and `007`.
fn with_toml_numbers(text: &str) -> String {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '[' | ']' | ',');
    let mut result = String::new();
    for part in text.split_inclusive(is_between) {
        let number = part.trim_end_matches(is_between);
        result.push_str(&toml_number(number).unwrap_or_else(|| number.to_owned()));
        result.push_str(&part[number.len()..]);
    }
    result
}

fn toml_number(text: &str) -> Option<String> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || "+-._eE".contains(c));
    if !is_plain || text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    let text = text.replace('_', "");
    match text.parse::<i64>() {
        Ok(whole) => Some(whole.to_string()),
        Err(_) => text.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| format!("{x:?}")),
    }
}

/// `lr = 1` means 1.0: a whole number where the default is a float.
pub(super) fn as_float_where_needed(key: &str, value: Value) -> Value {
    let defaults = Recipe::default().entries();
    let default = defaults.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    match (default, value) {
        (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    }
}

/// A float without a fraction as a whole number.
pub(super) fn as_whole(value: &Value) -> Option<Value> {
    // 2⁵³: beyond it not every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Float(float) if float.fract() == 0.0 && float.abs() <= EXACT => {
            Some(Value::Integer(*float as i64))
        }
        _ => None,
    }
}

/// Whether a value is how none was written before there was a word for it.
pub(super) fn is_old_none(value: &Value) -> bool {
    match value {
        Value::Integer(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::RecipeBuilder;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let lr = |text: &str| {
            let set = RecipeBuilder::new().override_with(&format!("optimizer.lr={text}"));
            set.unwrap().build().unwrap().optimizer.lr()
        };
        for (text, expected) in [
            (".1", 0.1),
            ("1.", 1.0),
            ("+.5", 0.5),
            ("1e-3", 1e-3),
            ("1.e-3", 1e-3),
            (".5E+1", 5.0),
            ("1E-3", 1e-3),
            ("00.25", 0.25),
            ("1_000", 1000.0),
            ("1_000.5", 1000.5),
            (" 0.5 ", 0.5),
        ] {
            assert_eq!(lr(text), expected, "{text}");
        }
        let set = |assignment: &str| RecipeBuilder::new().override_with(assignment);
        let train = |assignment: &str| set(assignment).unwrap().build().unwrap().train;
        for text in ["100", "1e2", "100.", "0100", "1_00", "100.0"] {
            assert_eq!(train(&format!("train.epochs={text}")).epochs, 100, "{text}");
        }
        let log = |assignment: &str| set(assignment).unwrap().build().unwrap().log;
        assert_eq!(log("log.measure_every_steps=1e2").measure_every_steps, Some(100));
        let schedule = set("schedule.milestones=[.5, 1., 1_0]").unwrap().build().unwrap().schedule;
        assert_eq!(schedule.milestones, [0.5, 1.0, 10.0]);
        for wrong in
            ["train.epochs=1.5", "train.epochs=1__0", "train.epochs=1e400", "train.epochs=1,000"]
        {
            set(wrong).unwrap_err();
        }
        // Names stay names.
        assert_eq!(set("data=idx:1.").unwrap().build().unwrap().data, "idx:1.");
        let text = "[train]\nepochs = 1e2\n";
        assert_eq!(
            RecipeBuilder::new().text(text, "r").unwrap().build().unwrap().train.epochs,
            100
        );
    }

    #[test]
    fn seeds_beyond_what_toml_holds_are_refused() {
        let set = |seed: &str| RecipeBuilder::new().override_with(&format!("train.seed={seed}"));
        let largest = set("9223372036854775807").unwrap().build().unwrap();
        assert_eq!(largest.train.seed, i64::MAX as u64);
        for seed in ["9223372036854775808", "18446744073709551615", "99999999999999999999999"] {
            let error = set(seed).unwrap_err().to_string();
            assert!(error.contains(&format!("train.seed = {seed}")), "{error}");
            assert!(error.contains("9223372036854775807"), "{error}");
        }
        assert!(set("-1").is_err());
    }
}
