//! Numbers in flags, as people write them: `1_000`, `1e3`, `.1`.

/// A number of things.
pub(super) fn count(given: &str) -> Result<usize, String> {
    whole(given).and_then(|number| usize::try_from(number).map_err(|error| error.to_string()))
}

/// A seed; a plan holds no larger ones.
pub(super) fn seed(given: &str) -> Result<u64, String> {
    whole(given)
}

fn whole(given: &str) -> Result<u64, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = without_separators(given);
    let exact = text.parse::<u64>().ok();
    let float =
        || text.parse().ok().filter(|x: &f64| x.fract() == 0.0 && (0.0..=EXACT).contains(x));
    let number = exact.or_else(|| float().map(|x| x as u64));
    let number = number.filter(|&number| i64::try_from(number).is_ok());
    number.ok_or_else(|| format!("expected a whole number between 0 and {}", i64::MAX))
}

/// A number.
pub(super) fn float(given: &str) -> Result<f64, String> {
    without_separators(given).parse().map_err(|_| "expected a number".to_owned())
}

/// A number above 0.
pub(super) fn positive(given: &str) -> Result<f64, String> {
    let number = float(given).ok().filter(|number| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

/// Without underscores between digits.
fn without_separators(given: &str) -> String {
    let is_separated = given
        .split('_')
        .all(|part| part.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)));
    if is_separated { given.replace('_', "") } else { given.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{count, float, positive, seed};

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (given, expected) in [("1000", 1000), ("1_000", 1000), ("1e3", 1000), ("0", 0)] {
            assert_eq!(count(given), Ok(expected), "{given}");
        }
        for given in ["", "-1", "1.5", "1__0", "_1", "1_", "many", "1e30", "nan"] {
            assert!(count(given).is_err(), "{given}");
        }
        for (given, expected) in [(".1", 0.1), ("1.", 1.0), ("1e-3", 1e-3), ("1_000.5", 1000.5)] {
            assert_eq!(float(given), Ok(expected), "{given}");
            assert_eq!(positive(given), Ok(expected), "{given}");
        }
        for given in ["0", "-1", "nan", "inf", "x"] {
            assert!(positive(given).is_err(), "{given}");
        }
    }

    #[test]
    fn seeds_that_no_plan_holds_are_refused() {
        assert_eq!(seed("9223372036854775807"), Ok(i64::MAX as u64));
        for given in ["9223372036854775808", "18446744073709551615", "-1"] {
            let error = seed(given).unwrap_err();
            assert!(error.contains("9223372036854775807"), "{error}");
        }
    }
}
