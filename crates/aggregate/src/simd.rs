//! The same code, compiled for the processor that it finds itself on.
//!
//! The kernels are plain loops over lanes, which the compiler turns into vectors: here they are
//! compiled once for any processor and again for the wider ones. They use no operation that gives
//! other bits on another processor (no fused multiply-add where the bits are not proved
//! afterwards), so which of them ran cannot be seen in a result.

/// A loop worth compiling for each processor. `run` has to be `#[inline(always)]`.
pub(crate) trait Vectorised {
    type Output;

    fn run(self) -> Self::Output;
}

pub(crate) fn dispatch<V: Vectorised>(kernel: V) -> V::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
        {
            #[expect(unsafe_code, reason = "the processor was asked for the features just now")]
            return unsafe { avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            #[expect(unsafe_code, reason = "the processor was asked for the features just now")]
            return unsafe { avx2(kernel) };
        }
    }
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
fn avx512<V: Vectorised>(kernel: V) -> V::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<V: Vectorised>(kernel: V) -> V::Output {
    kernel.run()
}
