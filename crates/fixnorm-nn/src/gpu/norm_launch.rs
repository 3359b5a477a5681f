//! Launches of the normalization: two in each direction, a third in between where there are many partial sums, and only one where
//! a cube has all rows of its columns.
//! Not here: the kernels (`norm_kernels.rs`, `norm_gradient.rs`).

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::norm::{NormBackend, NormGradBackend, NormSpec};
use super::norm_gradient::{
    finish_gradients, normalize_gradient, normalize_gradient_by_sums, sum_gradients,
};
use super::norm_kernels::{finish_moments, normalize, normalize_by_sums, sum_moments};
use super::products::reshaped;
use super::rows::{FEW, ROWS, Rows, elem, finishing, floats, high};

/// Launches of a direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Launches {
    /// Each cube has all rows of its columns.
    One,
    /// Every cube of the second launch adds up the sums of the first one's.
    Two,
    /// One in between adds up the sums, because there are many or a kernel may have few tensors.
    Three,
}

impl Launches {
    /// Tensors of a kernel that adds up sums and normalizes.
    const TENSORS: u32 = 9;

    /// Those for sums of this many cubes.
    fn of(tensor: &CubeTensor, cubes: u32) -> Self {
        let bindings = tensor.client.properties().hardware.max_bindings;
        match cubes {
            _ if cubes > FEW || bindings < Self::TENSORS => Self::Three,
            1 => Self::One,
            _ => Self::Two,
        }
    }
}

impl NormBackend for CubeBackend {
    fn norm_act(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let x = Rows::new(x);
        let (client, dtype) = (x.tensor.client.clone(), elem(&x.tensor));
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(into_contiguous);
        let c = gamma.shape()[0];
        let (count, dim) = x.summing();
        let cubes = high(&count);
        let launches = Launches::of(&x.tensor, cubes);
        // The moments, and partial sums behind them: one tensor, because a kernel may have few.
        let sums = floats(&x.tensor, [1 + cubes as usize, 2, c]);
        if launches != Launches::One {
            sum_moments::launch(
                &client,
                count,
                dim,
                x.lanes,
                x.tensor.clone().into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                x.rows,
                x.columns,
                x.pitch,
                dtype,
            );
        }
        let [next_mean, next_var] = [0, 1].map(|_| floats(&x.tensor, [c]));
        let out = x.empty_like();
        if launches != Launches::Three {
            let moments = reshaped(sums.clone(), [2, c]);
            let (count, dim) = x.cubes(2 * ROWS, u32::from(u16::MAX));
            normalize_by_sums::launch(
                &client,
                count,
                dim,
                x.lanes,
                x.tensor.clone().into_buffer_arg(),
                sums.into_buffer_arg(),
                gamma.into_buffer_arg(),
                beta.into_buffer_arg(),
                mean.into_buffer_arg(),
                var.into_buffer_arg(),
                out.tensor.clone().into_buffer_arg(),
                next_mean.clone().into_buffer_arg(),
                next_var.clone().into_buffer_arg(),
                x.rows,
                x.columns,
                x.pitch,
                cubes,
                spec.momentum,
                spec.epsilon,
                spec.activation,
                launches == Launches::One,
                dtype,
            );
            return (out.tensor, moments, next_mean, next_var);
        }
        let moments = floats(&x.tensor, [2, c]);
        let (count, dim) = finishing(x.columns as usize);
        finish_moments::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            sums.into_buffer_arg(),
            mean.into_buffer_arg(),
            var.into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            next_mean.clone().into_buffer_arg(),
            next_var.clone().into_buffer_arg(),
            x.columns,
            cubes,
            x.rows,
            spec.momentum,
            dtype,
        );
        let (count, dim) = x.cubes(ROWS, u32::from(u16::MAX));
        normalize::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            gamma.into_buffer_arg(),
            beta.into_buffer_arg(),
            out.tensor.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            spec.epsilon,
            spec.activation,
            dtype,
        );
        (out.tensor, moments, next_mean, next_var)
    }
}

impl NormGradBackend for CubeBackend {
    fn norm_act_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, dout) = (Rows::new(x), Rows::new(dout));
        let (client, dtype) = (x.tensor.client.clone(), elem(&x.tensor));
        let [gamma, beta, moments] = [gamma, beta, moments].map(into_contiguous);
        let c = gamma.shape()[0];
        let (count, dim) = x.summing();
        let cubes = high(&count);
        let launches = Launches::of(&x.tensor, cubes);
        let partial = floats(&x.tensor, [cubes as usize, 2, c]);
        if launches != Launches::One {
            sum_gradients::launch(
                &client,
                count,
                dim,
                x.lanes,
                x.tensor.clone().into_buffer_arg(),
                dout.tensor.clone().into_buffer_arg(),
                moments.clone().into_buffer_arg(),
                gamma.clone().into_buffer_arg(),
                beta.clone().into_buffer_arg(),
                partial.clone().into_buffer_arg(),
                x.rows,
                x.columns,
                x.pitch,
                dout.pitch,
                spec.epsilon,
                spec.activation,
                dtype,
            );
        }
        let [dgamma, dbeta] = [0, 1].map(|_| floats(&x.tensor, [c]));
        let dx = x.empty_like();
        if launches != Launches::Three {
            let (count, dim) = x.cubes(2 * ROWS, u32::from(u16::MAX));
            normalize_gradient_by_sums::launch(
                &client,
                count,
                dim,
                x.lanes,
                x.tensor.clone().into_buffer_arg(),
                dout.tensor.clone().into_buffer_arg(),
                moments.into_buffer_arg(),
                gamma.into_buffer_arg(),
                beta.into_buffer_arg(),
                partial.into_buffer_arg(),
                dgamma.clone().into_buffer_arg(),
                dbeta.clone().into_buffer_arg(),
                dx.tensor.clone().into_buffer_arg(),
                x.rows,
                x.columns,
                x.pitch,
                dout.pitch,
                cubes,
                spec.epsilon,
                spec.activation,
                launches == Launches::One,
                dtype,
            );
            return (dx.tensor, dgamma, dbeta);
        }
        let (count, dim) = finishing(x.columns as usize);
        finish_gradients::launch(
            &client,
            count,
            dim,
            x.lanes,
            partial.into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            dgamma.clone().into_buffer_arg(),
            dbeta.clone().into_buffer_arg(),
            x.columns,
            cubes,
            spec.epsilon,
        );
        let (count, dim) = x.cubes(ROWS, u32::from(u16::MAX));
        normalize_gradient::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            dout.tensor.clone().into_buffer_arg(),
            moments.into_buffer_arg(),
            gamma.into_buffer_arg(),
            beta.into_buffer_arg(),
            dgamma.clone().into_buffer_arg(),
            dbeta.clone().into_buffer_arg(),
            dx.tensor.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            dout.pitch,
            spec.epsilon,
            spec.activation,
            dtype,
        );
        (dx.tensor, dgamma, dbeta)
    }
}
