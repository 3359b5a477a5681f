//! The choice of a GPU's kernels for matrix products: by a table, so that the first step comes at once, or by Burn's tuner,
//! which measures candidates for minutes.
//! Not here: the products (`gpu/products.rs`).

use std::str::FromStr;
use std::sync::OnceLock;

/// How the kernels of a GPU's matrix products, which most convolutions are, are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductTuning {
    /// By kind of product, without measuring.
    Table(ProductTable),
    /// By Burn's tuner, which compiles and measures candidates for every shape it has not seen.
    Full,
}

/// The routine for each kind of product; `None` leaves the choice to fixnorm, by precision and device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProductTable {
    /// Many rows of pixels by a weight.
    pub images: Option<ProductRoutine>,
    /// The gradient of a weight: sums over many rows.
    pub weights: Option<ProductRoutine>,
    /// Few rows, one an image.
    pub vectors: Option<ProductRoutine>,
}

/// A family of kernels for matrix products. Those named after `cmma` and `mma` need tensor cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductRoutine {
    /// One stage, portable matrix instructions.
    SimpleCmma,
    /// One stage, the vendor's matrix instructions.
    SimpleMma,
    /// As [`SimpleMma`](Self::SimpleMma), with several rows of tiles for each group of units.
    SimpleMmaRows,
    /// Two stages that are loaded in turns, portable matrix instructions.
    DoubleCmma,
    /// Two stages that are loaded in turns, the vendor's matrix instructions.
    DoubleMma,
    /// Loads by Hopper's tensor memory accelerator.
    TmaMma,
    /// Units that load and units that multiply.
    SpecializedMma,
    /// Large tiles a unit, no matrix instructions.
    Unit,
    /// Small tiles a unit, no matrix instructions.
    UnitSmall,
}

impl ProductRoutine {
    /// All routines with their names.
    pub const ALL: [(&str, Self); 9] = [
        ("simple-cmma", Self::SimpleCmma),
        ("simple-mma", Self::SimpleMma),
        ("simple-mma-rows", Self::SimpleMmaRows),
        ("double-cmma", Self::DoubleCmma),
        ("double-mma", Self::DoubleMma),
        ("tma-mma", Self::TmaMma),
        ("specialized-mma", Self::SpecializedMma),
        ("unit", Self::Unit),
        ("unit-small", Self::UnitSmall),
    ];
}

impl Default for ProductTuning {
    fn default() -> Self {
        Self::Table(ProductTable::default())
    }
}

/// The choice for all products of this process.
static CHOSEN: OnceLock<ProductTuning> = OnceLock::new();

impl ProductTuning {
    /// Makes this the choice for all products. A program calls it once, before it trains; otherwise it is the table.
    ///
    /// # Errors
    /// The choice in use, if another one was made or a product already ran.
    pub fn set(self) -> Result<(), Self> {
        match *CHOSEN.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(current),
        }
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn of_process() -> Self {
        *CHOSEN.get_or_init(Self::default)
    }
}

/// A text that is no [`ProductTuning`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not choose the kernels of products; expected `table`, `full`, or a routine for some kinds, as in \
     `images=simple-mma,weights=double-cmma`: the kinds are images, weights and vectors, the routines {names}",
    names = ProductRoutine::ALL.map(|(name, _)| name).join(", ")
)]
pub struct UnknownTuning(pub String);

impl FromStr for ProductTuning {
    type Err = UnknownTuning;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "full" => return Ok(Self::Full),
            "table" => return Ok(Self::default()),
            _ => {}
        }
        let unknown = || UnknownTuning(text.to_owned());
        let mut table = ProductTable::default();
        for entry in text.split(',') {
            let (kind, name) = entry.split_once('=').ok_or_else(unknown)?;
            let known = ProductRoutine::ALL.into_iter().find(|&(known, _)| known == name);
            let routine = Some(known.ok_or_else(unknown)?.1);
            match kind {
                "images" => table.images = routine,
                "weights" => table.weights = routine,
                "vectors" => table.vectors = routine,
                _ => return Err(unknown()),
            }
        }
        Ok(Self::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_text() {
        assert_eq!("full".parse(), Ok(ProductTuning::Full));
        assert_eq!("table".parse(), Ok(ProductTuning::default()));
        let table = ProductTable {
            images: Some(ProductRoutine::SimpleMma),
            vectors: Some(ProductRoutine::UnitSmall),
            weights: None,
        };
        let found = "vectors=unit-small,images=simple-mma".parse();
        assert_eq!(found, Ok(ProductTuning::Table(table)));
    }

    #[test]
    fn what_names_no_kind_or_routine_is_refused() {
        for text in
            ["", "Full", "images", "images=", "pixels=unit", "images=unit,", "images=cublas"]
        {
            let error = text.parse::<ProductTuning>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("unit-small"),
                "{error}"
            );
        }
    }
}
