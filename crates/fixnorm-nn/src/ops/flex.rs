//! The memory of Burn's CPU tensors as slices, and tensors made of vectors.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, Element, Shape};
use fixnorm_kernels::{Real, bf16};

/// An element type that both Burn and the kernels have.
pub(crate) trait Stored: Real + Element + bytemuck::Pod {}
impl Stored for f32 {}
impl Stored for bf16 {}

/// The same tensor with its elements in row-major order.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous tensor of type `T`.
pub(crate) fn slice<T: Stored>(tensor: &FlexTensor) -> &[T] {
    tensor.as_slice().expect("contiguous, and of the type it was made in")
}

/// A tensor that takes over these elements.
pub(crate) fn flex<T: Stored>(values: Vec<T>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), T::dtype())
}
