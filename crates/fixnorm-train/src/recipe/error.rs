//! What can be wrong with a recipe.

use std::path::PathBuf;

use crate::recipe::named::NamedRecipe;

/// A recipe that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Neither a file nor the name of a recipe.
    #[error(
        "recipe `{given}` is neither a file nor a recipe of fixnorm; did you mean `{nearest}`? \
         `fixnorm recipes` lists them"
    )]
    Unknown {
        /// As given.
        given: String,
        /// The recipe most like it.
        nearest: &'static str,
    },
    /// Not TOML.
    #[error("recipe {origin}: {message}")]
    Syntax {
        /// File or flag.
        origin: String,
        /// Where and what.
        message: String,
    },
    /// A key that no recipe has.
    #[error("{origin}: unknown key `{key}`; did you mean `{nearest}`?")]
    UnknownKey {
        /// File or flag.
        origin: String,
        /// The key as given.
        key: String,
        /// The known key most like it.
        nearest: String,
    },
    /// A value for a section.
    #[error(
        "{origin}: `{section}` is a section, not a key; set one of its keys, for example {section}.{key}"
    )]
    Section {
        /// File or flag.
        origin: String,
        /// The section.
        section: String,
        /// A key of it.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("{key} = {value}: {message}")]
    Value {
        /// The key.
        key: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// Not of the form `key=value`.
    #[error("`{0}` is not of the form key=value, for example optimizer.lr=0.2")]
    Override(String),
}

impl RecipeError {
    /// No recipe has this name.
    pub fn unknown(name: &str) -> Self {
        Self::Unknown { given: name.to_owned(), nearest: NamedRecipe::nearest(name) }
    }
}
