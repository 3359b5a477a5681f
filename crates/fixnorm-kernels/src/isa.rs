//! Which instructions the kernels may use, found out once when the program runs.
//!
//! The environment variable `FIXNORM_ISA` makes another choice (`scalar`, `avx2`, `avx512`,
//! `avx512_bf16`, `amx`); it never raises it above what the processor has.

use std::sync::OnceLock;

/// Instruction sets, each including the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the target has: plain loops (on AArch64 these become NEON).
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 with dot products of bf16 pairs.
    Avx512Bf16,
    /// Tiles with bf16 products (Linux on x86-64).
    Amx,
}

impl Isa {
    /// All sets, least first.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name that `FIXNORM_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::Amx => "amx",
        }
    }

    /// The best set that this processor has.
    pub fn detected() -> Isa {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// The set in use: the fastest one, or what `FIXNORM_ISA` says.
    ///
    /// # Panics
    /// If `FIXNORM_ISA` is set to something that is not a name of a set.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| match std::env::var("FIXNORM_ISA") {
            Ok(name) => {
                let wanted = Isa::ALL.into_iter().find(|isa| isa.name() == name);
                let known = Isa::ALL.map(Isa::name).join(", ");
                wanted
                    .unwrap_or_else(|| panic!("FIXNORM_ISA is `{name}`; it takes {known}"))
                    .min(Isa::detected())
            }
            Err(_) => Isa::fastest(),
        })
    }

    /// The best set, but for dot products of bf16 pairs on Intel's cores: there one takes four times as long as
    /// a multiply-add of `f32`, which does half its work (measured on Emerald Rapids: 88 against 172 GFLOP/s on one core).
    fn fastest() -> Isa {
        match Isa::detected() {
            Isa::Avx512Bf16 if is_intel() => Isa::Avx512,
            best => best,
        }
    }

    /// The sets that this processor has, least first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|&isa| isa <= Isa::detected())
    }

    /// Runs `f` compiled for this set, as far as `f` is inlined: see [`vectorized`].
    ///
    /// # Panics
    /// If the processor lacks the set.
    #[inline]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        assert!(self <= Isa::detected(), "this processor has no {}", self.name());
        #[cfg(target_arch = "x86_64")]
        match self {
            Isa::Scalar => f(),
            // SAFETY: `self` is not above what was detected.
            Isa::Avx2 => unsafe { with_avx2(f) },
            // SAFETY: as above.
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe { with_avx512(f) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        f()
    }
}

/// Evaluates an expression compiled for an instruction set. What it calls is compiled so too where it is
/// `#[inline(always)]`, closures included.
macro_rules! vectorized {
    ($isa:expr, $body:expr) => {
        // Without the attribute the compiler keeps the closure apart, with the instructions of every
        // processor only.
        $isa.run(
            #[inline(always)]
            || $body,
        )
    };
}
pub(crate) use vectorized;

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let found = std::arch::x86_64::__cpuid(0);
    [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Isa::Scalar;
    }
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
        return Isa::Avx2;
    }
    if !has!("avx512bf16") {
        return Isa::Avx512;
    }
    if !amx::usable() {
        return Isa::Avx512Bf16;
    }
    Isa::Amx
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Whether the processor has tiles with bf16 products and the kernel lets this process use them.
    pub(super) fn usable() -> bool {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        if __cpuid(0).eax < 7 {
            return false;
        }
        let features = __cpuid_count(7, 0).edx;
        features & (BF16 | TILE) == BF16 | TILE && permitted()
    }

    /// Asks Linux for tile state: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`, which
    /// holds for all threads.
    fn permitted() -> bool {
        let result: isize;
        // SAFETY: this system call only changes which state the process may use; the kernel clobbers
        // rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") 158_isize => result,
                in("rdi") 0x1023,
                in("rsi") 18,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
mod amx {
    pub(super) fn usable() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn the_set_in_use_is_available() {
        assert!(Isa::available().any(|isa| isa == Isa::current()));
        assert_eq!(Isa::available().next(), Some(Isa::Scalar));
    }
}
