//! Sizes of a convolution.

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Height of an image.
    pub h: usize,
    /// Width of an image.
    pub w: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Rows of zeros above.
    pub top: usize,
    /// Columns of zeros to the left.
    pub left: usize,
    /// Height of a result.
    pub h_out: usize,
    /// Width of a result.
    pub w_out: usize,
    /// Number of groups: an output channel reads the input channels of its group only.
    pub groups: usize,
}

impl ConvShape {
    /// A convolution padded by half a kernel on each side, as PyTorch's models are.
    pub fn symmetric(
        [n, h, w, c_in]: [usize; 4],
        c_out: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Self {
        let pad = kernel / 2;
        let out = |x: usize| (x + 2 * pad - kernel) / stride + 1;
        Self {
            n,
            h,
            w,
            c_in,
            c_out,
            kernel,
            stride,
            top: pad,
            left: pad,
            h_out: out(h),
            w_out: out(w),
            groups,
        }
    }

    /// Number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c_in
    }

    /// Number of elements of the result.
    pub fn output_len(&self) -> usize {
        self.n * self.h_out * self.w_out * self.c_out
    }

    /// Number of elements of the weight.
    pub fn weight_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.kernel * self.kernel
    }

    /// Number of multiply-accumulates.
    pub fn macs(&self) -> u64 {
        (self.n * self.h_out * self.w_out) as u64 * self.weight_len() as u64
    }

    /// Name in a profile.
    pub(super) fn name(&self) -> String {
        let kind = match (self.is_depthwise(), self.groups, self.kernel) {
            (true, _, _) => "depthwise",
            (_, 1, 1) => "pointwise",
            (_, 1, _) => "dense",
            _ => "grouped",
        };
        format!(
            "{kind} {k}x{k}/{} {}x{} {} -> {}",
            self.stride,
            self.h,
            self.w,
            self.c_in,
            self.c_out,
            k = self.kernel
        )
    }

    pub(super) fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.c_in == self.c_out && self.groups > 1
    }

    /// Returns whether each pixel of the result depends on the input's pixel of the same index alone.
    pub(super) fn is_direct(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.groups == 1 && self.top == 0 && self.left == 0
    }

    /// Panics unless the sizes fit each other.
    pub(super) fn check(&self) {
        assert!(self.groups > 0 && self.c_in.is_multiple_of(self.groups));
        assert!(self.c_out.is_multiple_of(self.groups));
        assert!(self.kernel > 0 && self.kernel <= 32 && self.stride > 0 && self.n > 0);
        assert!(self.top < self.kernel && self.left < self.kernel);
        // The last pixel of the result still touches the image.
        assert!((self.h_out - 1) * self.stride < self.h + self.top);
        assert!((self.w_out - 1) * self.stride < self.w + self.left);
    }
}
