//! Knobs of a command and their ranges: `NAME=LOW:HIGH[:log]`.

use std::str::FromStr;

use crate::Axis;

/// A knob that a command takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Knob {
    /// Its name, as in `{name}`.
    pub name: String,
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
    /// Whether factors of its values matter, rather than differences.
    pub log: bool,
}

impl Knob {
    /// The axis that is searched.
    pub fn axis(&self) -> Axis {
        if self.log {
            Axis::new(&self.name, self.low.log2(), self.high.log2())
        } else {
            Axis::linear(&self.name, self.low, self.high)
        }
    }

    /// A knob of this name from `LOW:HIGH` or `LOW:HIGH:log`.
    ///
    /// # Errors
    /// A name that is no word or is taken by a placeholder, a range that is none.
    pub fn ranged(name: &str, range: &str) -> Result<Self, String> {
        let name = name.trim();
        if !is_name(name) || RESERVED.contains(&name) {
            return Err(format!(
                "`{name}` cannot be a knob's name: expected letters, digits and _, and not {}",
                RESERVED.join(", ")
            ));
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let parts: Vec<&str> = range.split(':').collect();
        let knob = match parts[..] {
            [low, high] => number(low).zip(number(high)).map(|ends| (ends, false)),
            [low, high, "log"] => number(low).zip(number(high)).map(|ends| (ends, true)),
            _ => None,
        };
        match knob {
            Some(((low, high), log)) if low < high && (!log || low > 0.0) => {
                Ok(Self { name: name.to_owned(), low, high, log })
            }
            _ => Err(format!(
                "{name}: expected LOW:HIGH or LOW:HIGH:log, LOW below HIGH and above 0 where it is log; found `{range}`"
            )),
        }
    }
}

impl FromStr for Knob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, range) =
            text.split_once('=').ok_or_else(|| "expected NAME=LOW:HIGH[:log]".to_owned())?;
        Self::ranged(name, range)
    }
}

/// Placeholders that are no knobs.
pub(super) const RESERVED: [&str; 3] = ["seed", "trial", "out"];

/// Whether `{name}` is a placeholder.
pub(super) fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Reads knobs from a TOML file's text: a line `name = "LOW:HIGH[:log]"` for each.
///
/// # Errors
/// What is no TOML, or no such line; the message names the key.
pub fn knobs_from_toml(text: &str) -> Result<Vec<Knob>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let knob = |(name, value): (&String, &toml::Value)| match value.as_str() {
        Some(range) => Knob::ranged(name, range),
        None => Err(format!("{name}: expected a text like \"1e-3:1:log\", found {value}")),
    };
    table.iter().map(knob).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_read_or_refused() {
        let knob: Knob = "lr=1e-3:1:log".parse().unwrap();
        assert_eq!((knob.name.as_str(), knob.log), ("lr", true));
        assert!((knob.axis().value(knob.axis().low) - 1e-3).abs() < 1e-15);
        let linear: Knob = "momentum=-0.5:0.9".parse().unwrap();
        assert_eq!(linear.axis().value(linear.axis().high), 0.9);
        for bad in [
            "lr",
            "lr=1",
            "lr=1:1",
            "lr=0:1:log",
            "lr=1:2:lin",
            "l r=1:2",
            "seed=1:2",
            "=1:2",
            "lr=a:b",
            "lr=1:inf",
        ] {
            assert!(bad.parse::<Knob>().is_err(), "{bad}");
        }
        let both = knobs_from_toml("wd = \"1e-5:1e-2:log\"\nlr = \"0.1:1\"\n").unwrap();
        assert_eq!(both.iter().map(|knob| knob.name.as_str()).collect::<Vec<_>>(), ["lr", "wd"]);
        for (bad, part) in [("lr = 1", "lr"), ("lr", "expected"), ("lr = \"2:1\"", "LOW")] {
            let error = knobs_from_toml(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
