//! Images as rows of channels, and their distribution among the units of a GPU.
//!
//! A unit processes a vector of channels in every n-th row; a cube has a column of units for each vector, and as many rows
//! as the number of its units allows.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Units of a cube.
pub(super) const UNITS: u32 = 256;
/// Largest number of cubes that sum. Each writes a partial sum; about a thousand fill a large GPU.
pub(super) const CUBES: u32 = 1024;
/// Smallest number of rows a unit.
pub(super) const ROWS: u32 = 8;
/// Most partial sums that each cube of the pass behind adds up by itself; for more a launch in between costs less.
pub(super) const FEW: u32 = 32;
/// Most rows a unit for the sake of so few partial sums.
const LONG: u32 = 64;

/// Images as rows of vectors.
pub(super) struct Rows {
    pub(super) tensor: CubeTensor,
    pub(super) rows: u32,
    /// Vectors of a row.
    pub(super) columns: u32,
    /// Vectors from a row to the next.
    pub(super) pitch: u32,
    /// Channels of a vector.
    pub(super) lanes: usize,
}

impl Rows {
    /// Rows of images `[n, h, w, c]`, copied if they have another layout.
    pub(super) fn new(tensor: CubeTensor) -> Self {
        let shape: [usize; 4] = tensor.shape().dims();
        let c = shape[3];
        let lanes = vector_of(c, tensor.dtype);
        let pitch = pitch(shape, tensor.meta.strides()).filter(|pitch| pitch.is_multiple_of(lanes));
        let (tensor, pitch) = match pitch {
            Some(pitch) => (tensor, pitch),
            None => (into_contiguous(tensor), c),
        };
        let rows = small(shape[..3].iter().product());
        Self { tensor, rows, columns: small(c / lanes), pitch: small(pitch / lanes), lanes }
    }

    /// The same with fewer channels a vector, at most `most`.
    pub(super) fn narrow(self, most: usize) -> Self {
        let times = (self.lanes / most).max(1);
        let (columns, pitch) = (self.columns * small(times), self.pitch * small(times));
        Self { columns, pitch, lanes: self.lanes / times, ..self }
    }

    /// Uninitialized rows of the same shape.
    pub(super) fn empty_like(&self) -> Self {
        let tensor = &self.tensor;
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        let fresh = empty_device_contiguous_dtype(client, device, tensor.shape(), tensor.dtype);
        Self { tensor: fresh, pitch: self.columns, ..*self }
    }

    /// Number and size of cubes, at most `most` of them, with at least `rows` rows a unit.
    pub(super) fn cubes(&self, rows: u32, most: u32) -> (CubeCount, CubeDim) {
        let x = self.columns.next_power_of_two().min(32);
        let y = UNITS / x;
        let wide = self.columns.div_ceil(x);
        let high = self.rows.div_ceil(y * rows).clamp(1, (most / wide).max(1));
        (CubeCount::Static(wide, high, 1), CubeDim::new_2d(x, y))
    }

    /// Number and size of cubes that sum over the rows.
    pub(super) fn summing(&self) -> (CubeCount, CubeDim) {
        let (count, dim) = self.cubes(ROWS, CUBES);
        match count {
            CubeCount::Static(wide, high, _) if high > FEW && self.rows <= FEW * dim.y * LONG => {
                (CubeCount::Static(wide, FEW, 1), dim)
            }
            count => (count, dim),
        }
    }
}

/// Elements from a row of `[n, h, w, c]` to the next, if the rows are evenly spaced and the channels adjacent.
fn pitch(shape: [usize; 4], strides: &[usize]) -> Option<usize> {
    let c = shape[3];
    if c > 1 && strides[3] != 1 {
        return None;
    }
    let (mut pitch, mut rows) = (None, 1);
    for axis in [2, 1, 0] {
        // The stride of an axis of length 1 has no meaning.
        if shape[axis] > 1 {
            if *pitch.get_or_insert(strides[axis]) * rows != strides[axis] {
                return None;
            }
            rows *= shape[axis];
        }
    }
    Some(pitch.unwrap_or(c))
}

/// The largest number of channels that fits in 16 bytes and divides `channels`.
fn vector_of(channels: usize, dtype: DType) -> usize {
    let most = 16 / dtype.size();
    [8, 4, 2, 1].into_iter().find(|&n| n <= most && channels.is_multiple_of(n)).unwrap_or(1)
}

pub(super) fn small(size: usize) -> u32 {
    u32::try_from(size).expect("a GPU holds no larger tensor")
}

/// An uninitialized `f32` tensor on the device of `tensor`.
pub(super) fn floats(tensor: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), DType::F32)
}

pub(super) fn elem(tensor: &CubeTensor) -> cubecl::ir::ElemType {
    burn::backend::cubecl::dtype_to_storage_type(tensor.dtype)
}

/// Number of partial sums that these cubes write.
pub(super) fn high(count: &CubeCount) -> u32 {
    match count {
        CubeCount::Static(_, high, _) => *high,
        CubeCount::Dynamic(_) => unreachable!("all counts are static"),
    }
}

/// Number and size of cubes with a unit for each value and eighth of the partial sums.
pub(super) fn finishing(values: usize) -> (CubeCount, CubeDim) {
    // A graphics interface has at most 65,535 cubes along an axis.
    let cubes = small(values).div_ceil(32);
    let along = cubes.clamp(1, 1 << 15);
    (CubeCount::Static(along, cubes.div_ceil(along), 1), CubeDim::new_2d(32, UNITS / 32))
}

/// Adds up the values of each column of units; the first row of units then has the sums.
#[cube]
pub(super) fn add_up<N: Size>(values: &mut Shared<[Vector<f32, N>]>) {
    sync_cube();
    let mut half = CUBE_DIM_Y / 2;
    while half > 0 {
        if UNIT_POS_Y < half {
            let other = values[(UNIT_POS + half * CUBE_DIM_X) as usize];
            values[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
}

/// The sum over cubes of one of the values that each cube wrote, `[cubes, numbers]`, in the first row of units.
#[cube]
pub(super) fn over_cubes(partial: &[f32], numbers: u32, cubes: u32, number: u32) -> f32 {
    let mut sum = 0.0f32;
    if number < numbers {
        let mut cube = UNIT_POS_Y;
        while cube < cubes {
            sum += partial[(cube * numbers + number) as usize];
            cube += CUBE_DIM_Y;
        }
    }
    let mut sums = Shared::<[Vector<f32, Const<1>>]>::new_slice(comptime!(UNITS as usize));
    sums[UNIT_POS as usize] = Vector::<f32, Const<1>>::new(sum);
    add_up::<Const<1>>(&mut sums);
    sums[UNIT_POS as usize].extract(0usize)
}

#[cfg(test)]
mod tests {
    use super::pitch;

    #[test]
    fn strides_decide_whether_images_are_rows() {
        assert_eq!(pitch([2, 3, 5, 7], &[105, 35, 7, 1]), Some(7));
        // Padded to eight channels.
        assert_eq!(pitch([2, 3, 5, 7], &[120, 40, 8, 1]), Some(8));
        // Channels first, and every second row of pixels.
        assert_eq!(pitch([2, 3, 5, 7], &[105, 5, 1, 15]), None);
        assert_eq!(pitch([2, 3, 5, 7], &[210, 70, 7, 1]), None);
        // Single indices may have any stride.
        assert_eq!(pitch([2, 1, 5, 7], &[35, 99, 7, 1]), Some(7));
        assert_eq!(pitch([1, 1, 1, 7], &[9, 9, 9, 1]), Some(7));
        assert_eq!(pitch([3, 2, 1, 1], &[2, 1, 4, 6]), Some(1));
    }
}
