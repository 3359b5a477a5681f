//! Augmentation policies by name.
//! Not here: what each draws (`auto.rs`, `rand.rs`, `trivial.rs`).

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::auto;
use super::levels::{MOST, Scale};
use super::op::Op;
use super::rand::RandAugment;
use super::trivial;
use crate::DataError;

/// A policy: the operations that an image gets. Its name is one of
///
/// - nothing: none;
/// - `imagenet`: AutoAugment's policy for ImageNet with torchvision's strengths;
/// - `original`, `v0`: that policy, and TensorFlow's for EfficientNet, with timm's strengths; `-mstd0.5`
///   behind it makes strengths vary with that standard deviation;
/// - `rand-m9-mstd0.5-inc1`: RandAugment with timm's options, in any order: `m` strength (10), `n` operations
///   an image (2), `p` probability of each (0.5), `mstd` standard deviation of the strength (0; above 100:
///   any up to it), `mmax` its bound (10), `inc1` for strengths that all lead away from the image (0);
/// - `trivial`: TrivialAugment, wide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    /// As given.
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Kind {
    #[default]
    None,
    Auto(auto::Policy, f64),
    Rand(RandAugment),
    Trivial,
}

impl Policy {
    /// Returns true if this policy changes nothing.
    pub fn is_none(&self) -> bool {
        self.kind == Kind::None
    }

    /// Operations for an image of `[height, width]`, in order.
    pub(crate) fn draw(&self, size: [usize; 2], random: &mut ChaCha8Rng) -> Vec<Op> {
        match &self.kind {
            Kind::None => vec![],
            &Kind::Auto(policy, noise) => auto::draw(policy, noise, size, random),
            Kind::Rand(options) => options.draw(size, random),
            Kind::Trivial => vec![trivial::draw(random)],
        }
    }
}

impl FromStr for Policy {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let unknown = || DataError::Policy { given: name.to_owned() };
        let (first, options) = name.split_once('-').unwrap_or((name, ""));
        let options = options.split('-').filter(|option| !option.is_empty());
        let kind = match first {
            "" => Kind::None,
            "imagenet" => Kind::Auto(auto::Policy::ImageNet, 0.0),
            "trivial" => Kind::Trivial,
            "original" | "v0" => {
                let mut noise = 0.0;
                for option in options.clone() {
                    noise = option.strip_prefix("mstd").and_then(positive).ok_or_else(unknown)?;
                }
                let policy = if first == "v0" { auto::Policy::V0 } else { auto::Policy::Original };
                Kind::Auto(policy, noise)
            }
            "rand" => Kind::Rand(rand_augment(options.clone()).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        };
        let takes_options = matches!(first, "original" | "v0" | "rand");
        if name != first && (!takes_options || options.count() == 0) {
            return Err(unknown());
        }
        Ok(Self { name: name.to_owned(), kind })
    }
}

fn positive(value: &str) -> Option<f64> {
    value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

fn rand_augment<'a>(options: impl Iterator<Item = &'a str>) -> Option<RandAugment> {
    let mut rand = RandAugment {
        count: 2,
        magnitude: MOST,
        noise: 0.0,
        most: MOST,
        probability: 0.5,
        scale: Scale::Plain,
    };
    for option in options {
        let digit = option.find(|c: char| c.is_ascii_digit())?;
        let (key, value) = option.split_at(digit);
        let value = positive(value)?;
        match key {
            "m" => rand.magnitude = value,
            "n" if value.fract() == 0.0 && value <= 100.0 => rand.count = value as usize,
            "p" if value <= 1.0 => rand.probability = value,
            "mstd" => rand.noise = if value > 100.0 { f64::INFINITY } else { value },
            "mmax" => rand.most = value,
            "inc" if value == 0.0 => rand.scale = Scale::Plain,
            "inc" if value == 1.0 => rand.scale = Scale::Increasing,
            _ => return None,
        }
    }
    Some(rand)
}

impl TryFrom<String> for Policy {
    type Error = DataError;

    fn try_from(name: String) -> Result<Self, DataError> {
        name.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> String {
        policy.name
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_again() {
        for name in [
            "",
            "imagenet",
            "original",
            "v0-mstd0.5",
            "rand",
            "rand-m9-mstd0.5-inc1",
            "rand-n3-p1-mmax30",
            "trivial",
        ] {
            let policy: Policy = name.parse().unwrap();
            assert_eq!(policy.to_string(), name);
            assert_eq!(policy.is_none(), name.is_empty());
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        }
    }

    #[test]
    fn options_are_timms() {
        let policy: Policy = "rand-m9-n3-mstd0.5-inc1-p0.25".parse().unwrap();
        let expected = RandAugment {
            count: 3,
            magnitude: 9.0,
            noise: 0.5,
            most: 10.0,
            probability: 0.25,
            scale: Scale::Increasing,
        };
        assert_eq!(policy.kind, Kind::Rand(expected));
        let Kind::Rand(any) = "rand-mstd101".parse::<Policy>().unwrap().kind else { panic!() };
        assert_eq!((any.noise, any.magnitude), (f64::INFINITY, 10.0));
    }

    #[test]
    fn what_is_not_a_policy_is_refused() {
        for name in [
            "auto",
            "rand9",
            "rand-",
            "rand-m",
            "rand-x3",
            "rand-m-1",
            "rand-p2",
            "rand-n1.5",
            "rand-inc2",
            "imagenet-mstd0.5",
            "v0-m9",
            "trivial-m9",
            "rand-mnan",
            "rand-minf",
            "rand-mé9",
        ] {
            let error = name.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }
}
