//! Matrix products on a GPU, by CubeK's kernels. Which one is looked up by kind, not measured: a step's products are of three
//! kinds, and with the kernel fixed their sizes are arguments, so few kernels are compiled.
//! Not here: the user's choice (`ops/product_tuning.rs`), operands that are images (`conv_kernels.rs`).

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::matmul::multi_level::components::tile::TileMatmulKind;
use cubek::matmul::multi_level::routines::TileSizeSelection;
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
use cubek::matmul::multi_level::routines::batch::simple_unit::SimpleUnitSelectionArgs;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::std::InputBinding;

use super::rows::elem;
use crate::ops::product_tuning::{ProductRoutine, ProductTable, ProductTuning};

/// Kind of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Many rows of pixels by a weight.
    Images,
    /// The gradient of a weight: sums over many rows.
    Weights,
    /// Few rows, one an image.
    Vectors,
}

impl Kind {
    /// The kind of a product of `rows` rows with a weight.
    pub(super) fn of_rows(rows: usize) -> Self {
        if rows > 1024 { Self::Images } else { Self::Vectors }
    }
}

/// Writes the product of the last two axes to `out`.
///
/// # Shapes
/// `lhs`: `[.., m, k]`, `rhs`: `[.., k, n]`, `out`: `[.., m, n]`.
pub(super) fn multiply(kind: Kind, lhs: CubeTensor, rhs: CubeTensor, out: &CubeTensor) {
    let table = match ProductTuning::of_process() {
        ProductTuning::Table(table) => table,
        ProductTuning::Full => {
            let strategy = MatmulStrategy::default();
            matmul(lhs, rhs, Some(out.clone()), strategy, out.dtype).expect("Burn has a fallback");
            return;
        }
    };
    let asked = routine(table, kind, lhs.dtype);
    let mut errors = Vec::new();
    // The last needs nothing of the device.
    for strategy in [strategy(asked), strategy(ProductRoutine::Unit), Strategy::Naive] {
        match launch(strategy, lhs.clone(), rhs.clone(), out.clone()) {
            Ok(()) => return,
            Err(error) => errors.push(error),
        }
    }
    panic!("no kernel multiplies {:?} by {:?}: {errors:?}", lhs.shape(), rhs.shape());
}

/// The table. With 32 bits no routine rounds to the 19 that tensor cores have.
fn routine(table: ProductTable, kind: Kind, dtype: DType) -> ProductRoutine {
    let asked = match kind {
        Kind::Images => table.images,
        Kind::Weights => table.weights,
        Kind::Vectors => table.vectors,
    };
    asked.unwrap_or(match (dtype, kind) {
        (DType::F32, Kind::Vectors) => ProductRoutine::UnitSmall,
        (DType::F32, _) => ProductRoutine::Unit,
        _ => ProductRoutine::SimpleCmma,
    })
}

fn strategy(routine: ProductRoutine) -> Strategy {
    fn simple(tile_matmul: TileMatmulKind, multi_rows: bool) -> SimpleArgs {
        SimpleArgs { tile_matmul, multi_rows }
    }
    fn double(tile_matmul: TileMatmulKind) -> DoubleBufferingArgs {
        DoubleBufferingArgs { specialized: false, tile_matmul }
    }
    use BlueprintStrategy::Inferred;
    use TileMatmulKind::{Cmma, Mma};
    match routine {
        ProductRoutine::SimpleCmma => Strategy::SimpleCyclicCmma(Inferred(simple(Cmma, false))),
        ProductRoutine::SimpleMma => Strategy::SimpleCyclicMma(Inferred(simple(Mma, false))),
        ProductRoutine::SimpleMmaRows => Strategy::SimpleCyclicMma(Inferred(simple(Mma, true))),
        ProductRoutine::DoubleCmma => Strategy::DoubleCyclicCmma(Inferred(double(Cmma))),
        ProductRoutine::DoubleMma => Strategy::DoubleCyclicMma(Inferred(double(Mma))),
        ProductRoutine::TmaMma => Strategy::SimpleTmaMma(Inferred(simple(Mma, false))),
        ProductRoutine::SpecializedMma => Strategy::SpecializedCyclicMma(Inferred(().into())),
        ProductRoutine::Unit => unit(TileSizeSelection::MaxTileSize),
        ProductRoutine::UnitSmall => unit(TileSizeSelection::MinTileSize),
    }
}

fn unit(tile_size: TileSizeSelection) -> Strategy {
    Strategy::SimpleUnit(BlueprintStrategy::Inferred(SimpleUnitSelectionArgs { tile_size }))
}

fn launch(
    strategy: Strategy,
    lhs: CubeTensor,
    rhs: CubeTensor,
    out: CubeTensor,
) -> Result<(), String> {
    let (client, name) = (out.client.clone(), strategy.to_string());
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: elem(&lhs),
        rhs: elem(&rhs),
        out: elem(&out),
    });
    let [lhs, rhs] = [lhs, rhs].map(|operand| {
        let elem = elem(&operand);
        InputBinding::new(operand.binding(), elem)
    });
    launch_ref(&strategy.into(), &client, lhs, rhs, out.binding(), &mut types)
        .map_err(|error| format!("{name}: {error:?}"))
}

/// The same elements as rows of another length, of a contiguous tensor.
pub(super) fn reshaped(tensor: CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let CubeTensor { client, handle, device, dtype, .. } = tensor;
    CubeTensor::new_contiguous(client, device, shape.into(), handle, dtype)
}

/// A view with the last two axes exchanged.
pub(super) fn transposed(tensor: CubeTensor) -> CubeTensor {
    if tensor.rank() == 3 { permute(tensor, &[0, 2, 1]) } else { permute(tensor, &[1, 0]) }
}

/// Number of pieces of a sum over `rows` rows, so that enough cubes work on `[m, n]` results: a divisor of `rows`, if possible
/// into multiples of 32.
pub(super) fn pieces(rows: usize, m: usize, n: usize) -> usize {
    /// Side of the results that a cube computes, more or less.
    const TILE: usize = 64;
    /// Cubes that fill a large GPU.
    const CUBES: usize = 512;
    /// Rows for which a piece is worth its launch.
    const ROWS: usize = 1024;
    let most = (CUBES / (m.div_ceil(TILE) * n.div_ceil(TILE))).min(rows / ROWS).max(1);
    let down = || (1..=most).rev();
    let even = down().find(|&pieces| rows.is_multiple_of(32 * pieces));
    even.or_else(|| down().find(|&pieces| rows.is_multiple_of(pieces))).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sums_are_cut_evenly_and_short_ones_not_at_all() {
        assert_eq!(pieces(256 * 112 * 112, 16, 96), 512 / 2);
        assert_eq!(pieces(256 * 7 * 7, 1280, 320), 4);
        assert_eq!(pieces(49, 1280, 320), 1);
        // A prime.
        assert_eq!(pieces(104_729, 8, 8), 1);
        // No multiple of 32.
        assert_eq!(pieces(3 * 5 * 7 * 11 * 13, 8, 8), 13);
        for rows in [1, 31, 4608, 6272, 100_352] {
            assert_eq!(rows % pieces(rows, 24, 40), 0);
        }
    }

    #[test]
    fn the_table_keeps_32_bits_and_can_be_overridden() {
        let (none, asked) = (ProductTable::default(), Some(ProductRoutine::DoubleMma));
        assert_eq!(routine(none, Kind::Images, DType::F32), ProductRoutine::Unit);
        assert_eq!(routine(none, Kind::Images, DType::BF16), ProductRoutine::SimpleCmma);
        let table = ProductTable { weights: asked, ..none };
        assert_eq!(routine(table, Kind::Weights, DType::F32), ProductRoutine::DoubleMma);
        assert_eq!(routine(table, Kind::Vectors, DType::F32), ProductRoutine::UnitSmall);
    }
}
