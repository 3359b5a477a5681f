//! Normalizes images of bytes on a GPU: copying bytes there takes a quarter of the time of copying floats.

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, cubecl};

use super::rows::{UNITS, floats, small};

/// Bytes of a word: graphics interfaces have no smaller type.
const WORD: usize = size_of::<u32>();

/// `pixel · scale − offset` of every pixel, with a scale and an offset for each channel.
///
/// # Shapes
/// `bytes`: `shape`, which is `[n, h, w, c]`, as is the result; `scales`: `[c]`.
///
/// # Panics
/// If the number of bytes or channels does not match the shape, or the device is no GPU.
pub fn normalize_bytes(
    mut bytes: Vec<u8>,
    shape: [usize; 4],
    scales: &[(f32, f32)],
    device: &Device,
) -> Tensor<4> {
    assert_eq!((bytes.len(), scales.len()), (shape.iter().product(), shape[3]), "{shape:?}");
    let plain = device.clone().inner();
    bytes.resize(bytes.len().next_multiple_of(WORD), 0);
    let words = [bytes.len() / WORD];
    let words = TensorData::from_bytes(Bytes::from_bytes_vec(bytes), words, DType::U32);
    let words = Tensor::<1, Int>::from_data(words, (&plain, DType::U32));
    let (scale, offset): (Vec<f32>, Vec<f32>) = scales.iter().copied().unzip();
    let scales = Tensor::<1>::from_floats(&[scale, offset].concat()[..], &plain);
    let out = Dispatch::normalize_bytes(words.into_dispatch(), scales.into_dispatch(), shape);
    let out = Tensor::from_dispatch(out);
    if device.is_autodiff() { Tensor::from_inner(out) } else { out }
}

/// Backends that normalize bytes.
#[backend_extension(Cube, Fusion)]
pub(crate) trait BytesBackend: Backend {
    /// As [`normalize_bytes`](self::normalize_bytes), for words of four bytes, with all scales and then all offsets.
    #[fusion(meta = |_words, _scales, shape| TensorSpec::new((*shape).into(), DType::F32))]
    fn normalize_bytes(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        shape: [usize; 4],
    ) -> FloatTensor<Self>;
}

impl BytesBackend for CubeBackend {
    fn normalize_bytes(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        shape: [usize; 4],
    ) -> FloatTensor<Self> {
        let (words, scales) = (into_contiguous(words), into_contiguous(scales));
        let values = small(shape.iter().product());
        let cubes = values.div_ceil(UNITS).min(u32::from(u16::MAX));
        let out = floats(&words, shape);
        normalize::launch(
            &words.client.clone(),
            CubeCount::Static(cubes, 1, 1),
            CubeDim::new_1d(UNITS),
            words.into_buffer_arg(),
            scales.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            values,
            small(shape[3]),
        );
        out
    }
}

#[cube(launch)]
fn normalize(words: &[u32], scales: &[f32], out: &mut [f32], values: u32, channels: u32) {
    let mut at = ABSOLUTE_POS as u32;
    while at < values {
        // The first byte is the lowest.
        let byte = (words[(at / 4) as usize] >> (at % 4 * 8)) & 255;
        let channel = at % channels;
        let scale = scales[channel as usize];
        let offset = scales[(channels + channel) as usize];
        out[at as usize] = f32::cast_from(byte) * scale - offset;
        at += CUBE_COUNT_X * CUBE_DIM_X;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_normalized_by_its_channel() {
        // Bytes that do not fill a word, an image of each value, more bytes than units.
        for shape in [[1, 1, 1, 1], [2, 3, 5, 3], [1, 16, 16, 1], [7, 2, 1, 5], [3, 2400, 800, 3]] {
            let len: usize = shape.iter().product();
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
            let c = shape[3];
            let scales: Vec<(f32, f32)> =
                (0..c).map(|c| (0.01 + c as f32 / 300.0, c as f32 - 0.7)).collect();
            for device in [Device::default(), Device::default().autodiff()] {
                let found = normalize_bytes(bytes.clone(), shape, &scales, &device);
                assert_eq!((found.dims(), found.device()), (shape, device));
                let found: Vec<f32> = found.into_data().iter().collect();
                for (i, (&byte, found)) in bytes.iter().zip(found).enumerate() {
                    let (scale, offset) = scales[i % c];
                    let expected = f32::from(byte) * scale - offset;
                    assert!((found - expected).abs() < 1e-5, "{shape:?} {i}: {found}, {expected}");
                }
            }
        }
    }
}
