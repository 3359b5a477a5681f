//! Keys that may be off or derived: an `Option` that is written as a word, since TOML has no null.
//!
//! `none` is written for a key that is off and `auto` for one that follows from model, data or other keys; both are read as
//! either. Before there were words, 0 and the empty text meant the same in keys of that time (`none`, `auto`); there they still
//! read as none, and in newer keys (`derived`) they are values.

use std::fmt;
use std::marker::PhantomData;

use fixnorm::{Scope, StepRule};
use fixnorm_data::{Crop, Interpolation, Policy};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The type of a value that may be absent.
pub(super) trait Value: Serialize + for<'de> Deserialize<'de> {
    /// What the value is, for errors.
    const EXPECTED: &'static str;

    /// Whether it is how none was written before there were words for it.
    fn is_old_none(&self) -> bool {
        false
    }
}

impl Value for f64 {
    const EXPECTED: &'static str = "a number";

    fn is_old_none(&self) -> bool {
        *self == 0.0
    }
}

impl Value for usize {
    const EXPECTED: &'static str = "a whole number";

    fn is_old_none(&self) -> bool {
        *self == 0
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text";

    fn is_old_none(&self) -> bool {
        self.is_empty()
    }
}

impl Value for Policy {
    const EXPECTED: &'static str = "an augmentation policy";

    fn is_old_none(&self) -> bool {
        *self == Policy::default()
    }
}

impl Value for Crop {
    const EXPECTED: &'static str = "a crop";
}

impl Value for Interpolation {
    const EXPECTED: &'static str = "an interpolation";
}

impl Value for Scope {
    const EXPECTED: &'static str = "a scope";
}

impl Value for StepRule {
    const EXPECTED: &'static str = "a step rule";
}

/// An optional value whose absence is written `none`.
pub(super) mod none {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer, T: Value>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(value, "none", serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, T: Value>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(Optional { word: "none", old_forms: true, value: PhantomData })
    }
}

/// An optional value whose absence is written `auto`.
pub(super) mod auto {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer, T: Value>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(value, "auto", serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, T: Value>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(Optional { word: "auto", old_forms: true, value: PhantomData })
    }
}

/// An optional value whose absence is written `auto`, and for which 0 is a value like others.
pub(super) mod derived {
    pub(in super::super) use super::auto::serialize;
    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, T: Value>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(Optional {
            word: "auto",
            old_forms: false,
            value: PhantomData,
        })
    }
}

fn write<S: Serializer, T: Value>(
    value: &Option<T>,
    word: &str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str(word),
    }
}

/// Reads a value or a word for none.
struct Optional<T> {
    /// The word, for errors.
    word: &'static str,
    /// Whether 0 and the empty text mean none.
    old_forms: bool,
    value: PhantomData<T>,
}

impl<T: Value> Optional<T> {
    fn read<'de, E: de::Error>(
        &self,
        given: impl IntoDeserializer<'de, E>,
    ) -> Result<Option<T>, E> {
        let value = T::deserialize(given.into_deserializer())?;
        Ok(Some(value).filter(|value| !(self.old_forms && value.is_old_none())))
    }
}

impl<T: Value> Visitor<'_> for Optional<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or \"{}\"", T::EXPECTED, self.word)
    }

    fn visit_i64<E: de::Error>(self, given: i64) -> Result<Self::Value, E> {
        self.read(given)
    }

    fn visit_u64<E: de::Error>(self, given: u64) -> Result<Self::Value, E> {
        self.read(given)
    }

    fn visit_f64<E: de::Error>(self, given: f64) -> Result<Self::Value, E> {
        self.read(given)
    }

    fn visit_str<E: de::Error>(self, given: &str) -> Result<Self::Value, E> {
        match given {
            "none" | "auto" => Ok(None),
            given => self.read(given),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Keys {
        #[serde(with = "none")]
        number: Option<f64>,
        #[serde(with = "auto")]
        count: Option<usize>,
        #[serde(with = "none")]
        text: Option<String>,
        #[serde(with = "auto")]
        crop: Option<Crop>,
    }

    #[test]
    fn zero_is_a_value_of_newer_keys() {
        #[derive(Deserialize)]
        struct Newer {
            #[serde(with = "derived")]
            lr: Option<f64>,
        }
        let lr = |text: &str| toml::from_str::<Newer>(text).unwrap().lr;
        assert_eq!([lr("lr = 0.0"), lr("lr = \"auto\"")], [Some(0.0), None]);
    }

    fn read(text: &str) -> Result<Keys, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn words_and_values_survive_a_round_trip() {
        let none = Keys { number: None, count: None, text: None, crop: None };
        let text = "number = \"none\"\ncount = \"auto\"\ntext = \"none\"\ncrop = \"auto\"\n";
        assert_eq!(toml::to_string(&none).unwrap(), text);
        assert_eq!(read(text).unwrap(), none);
        assert_eq!(read(&text.replace("none", "auto")).unwrap(), none);
        let text = "number = 0.5\ncount = 3\ntext = \"a\"\ncrop = \"center\"\n";
        let some = read(text).unwrap();
        assert_eq!((some.number, some.count, some.crop), (Some(0.5), Some(3), Some(Crop::Center)));
        assert_eq!(toml::to_string(&some).unwrap(), text);
    }

    #[test]
    fn zero_and_empty_text_still_mean_none() {
        let old = read("number = 0.0\ncount = 0\ntext = \"\"\ncrop = \"auto\"\n").unwrap();
        assert_eq!(old, Keys { number: None, count: None, text: None, crop: None });
    }

    #[test]
    fn other_values_are_refused_by_what_is_expected() {
        let with = |line: &str| {
            let key = line.split(' ').next().unwrap();
            let lines = ["number = 1", "count = 1", "text = \"a\"", "crop = \"center\""];
            let others = lines.into_iter().filter(|other| !other.starts_with(key));
            read(&others.chain([line]).collect::<Vec<_>>().join("\n")).unwrap_err()
        };
        assert!(with("number = true").contains("a number or \"none\""));
        assert!(with("count = -1").contains("-1"));
        assert!(with("count = \"many\"").contains("many"));
        assert!(with("crop = \"round\"").contains("unknown variant `round`"));
    }
}
