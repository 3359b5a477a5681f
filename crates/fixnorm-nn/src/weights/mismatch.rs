//! The tensors of a file that do not fit a model, and how a message lists them.
//! Not here: comparing a file with a model (`fit.rs`).

use std::fmt;

/// All tensors that do not fit. Displayed, it gives counts and a few examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors the model has and the file lacks.
    pub missing: Vec<String>,
    /// Tensors the file has and the model lacks.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, the model's and the file's.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

/// The model of the registry that a file fits best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearestModel {
    /// Its id.
    pub model: &'static str,
    /// Number of its tensors that the file has with the same shape.
    pub fitting: usize,
    /// Number of its tensors.
    pub tensors: usize,
}

/// Examples in a message of each way not to fit.
const EXAMPLES: usize = 5;
/// Characters of a name in a message.
const NAME_LEN: usize = 60;

impl Mismatch {
    /// Returns whether all tensors fit.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// Name, expected and found shape of every misshapen tensor, in words.
    pub fn misshapen_with_shapes(&self) -> Vec<String> {
        let misshapen = self.misshapen.iter();
        misshapen.map(|(name, expected, found)| with_shapes(name, expected, found)).collect()
    }

    /// Names of the model's tensors that the file does not give: missing ones and misshapen ones.
    pub(super) fn not_given(&self) -> impl Iterator<Item = &String> {
        self.missing.iter().chain(self.misshapen.iter().map(|(name, ..)| name))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |names: &[String]| -> Vec<String> {
            names.iter().take(EXAMPLES).map(|name| shortened(name)).collect()
        };
        let misshapen = self.misshapen.iter().take(EXAMPLES);
        let misshapen = misshapen
            .map(|(name, expected, found)| with_shapes(&shortened(name), expected, found))
            .collect();
        let mut separator = "";
        for (kind, count, examples) in [
            ("missing", self.missing.len(), short(&self.missing)),
            ("unexpected", self.unexpected.len(), short(&self.unexpected)),
            ("of another shape", self.misshapen.len(), misshapen),
        ] {
            if count > 0 {
                write!(f, "{separator} {kind}: {}", counted(count, &examples))?;
                separator = ";";
            }
        }
        Ok(())
    }
}

impl fmt::Display for NearestModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, fitting, tensors } = self;
        write!(f, "the nearest model is {model}, of whose {tensors} tensors {fitting} fit")
    }
}

fn with_shapes(name: &str, expected: &[usize], found: &[usize]) -> String {
    format!("{name} (expected {expected:?}, found {found:?})")
}

fn counted(count: usize, examples: &[String]) -> String {
    let plural = if count == 1 { "" } else { "s" };
    let more = match count - examples.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{count} tensor{plural}, {}{more}", examples.join(", "))
}

/// `name`, or its end where it is long.
fn shortened(name: &str) -> String {
    let len = name.chars().count();
    if len <= NAME_LEN {
        return name.to_owned();
    }
    format!("…{}", name.chars().skip(len - NAME_LEN).collect::<String>())
}
