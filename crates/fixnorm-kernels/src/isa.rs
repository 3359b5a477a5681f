//! The instruction sets that kernels are compiled for, and which of them this processor has.
//!
//! An [`Isa`] can only be obtained from the processor, so a value of it is the proof that the
//! processor has the set. Kernels rely on that proof where they run vector instructions.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that this processor has. Each set includes those of its architecture that are less than it.
///
/// There is no way to name a set into existence:
///
/// ```compile_fail
/// use fixnorm_kernels::Isa;
/// let amx: Isa = Isa::Amx;
/// ```
///
/// ```
/// use fixnorm_kernels::Isa;
/// assert_eq!(Isa::from_name("scalar"), Ok(Isa::SCALAR));
/// assert!(Isa::from_name("mmx").is_err());
/// for isa in Isa::available() {
///     assert_eq!(Isa::from_name(isa.name()), Ok(isa));
/// }
/// ```
// The field is private to this file, and only `SCALAR`, `detected` and what compares with it set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

/// The name of an instruction set, least first. It proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// What every processor of the target has: plain loops, which compilers turn into its vector instructions.
    Scalar,
    /// NEON, 32 registers of four `f32`: every processor of the usual targets for AArch64.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 with dot products of bf16 pairs.
    Avx512Bf16,
    /// Tiles with bf16 products (Linux on x86-64).
    Amx,
}

impl Level {
    const ALL: [Level; 6] =
        [Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx];

    /// Returns whether processors of this target's architecture may have the set.
    fn is_of_target(self) -> bool {
        match self {
            Level::Scalar => true,
            Level::Neon => cfg!(target_arch = "aarch64"),
            Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 | Level::Amx => {
                cfg!(target_arch = "x86_64")
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512_bf16",
            Level::Amx => "amx",
        }
    }
}

/// Why an instruction set cannot be used. The message lists the sets that can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    Unknown(String),
    /// The processor or the operating system lacks the set of this name.
    Unsupported(String),
    /// Kernels already use another set.
    InUse {
        /// The set that was to be used.
        requested: Isa,
        /// The set in use.
        current: Isa,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown(name) => write!(f, "`{name}` is not an instruction set")?,
            IsaError::Unsupported(name) => write!(f, "this processor does not have `{name}`")?,
            IsaError::InUse { requested, current } => {
                let (requested, current) = (requested.name(), current.name());
                return write!(
                    f,
                    "cannot change to `{requested}`: kernels already use `{current}`"
                );
            }
        }
        let available: Vec<_> = Isa::available().map(Isa::name).collect();
        write!(f, "; available here: {}", available.join(", "))
    }
}

impl std::error::Error for IsaError {}

impl Isa {
    /// Plain loops, which every processor runs.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// Name of the set, as [`from_name`](Self::from_name) takes it.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The greatest set that this processor has.
    pub fn detected() -> Isa {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| Isa(detect()))
    }

    /// The sets that this processor has, least first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let detected = Isa::detected().0;
        Level::ALL
            .into_iter()
            .filter(move |&level| level.is_of_target() && level <= detected)
            .map(Isa)
    }

    /// The set of this name: `scalar`, `neon`, `avx2`, `avx512`, `avx512_bf16` or `amx`.
    ///
    /// # Errors
    /// [`IsaError::Unknown`] for any other name, [`IsaError::Unsupported`] where this processor lacks the set.
    pub fn from_name(name: &str) -> Result<Isa, IsaError> {
        if let Some(isa) = Isa::available().find(|isa| isa.name() == name) {
            return Ok(isa);
        }
        let known = Level::ALL.iter().any(|level| level.name() == name);
        Err(if known { IsaError::Unsupported } else { IsaError::Unknown }(name.to_owned()))
    }

    /// The set in use: the one given to [`set_current`](Self::set_current), by default the fastest one.
    pub fn current() -> Isa {
        *CURRENT.get_or_init(Isa::fastest)
    }

    /// Makes this the set that [`current`](Self::current) returns. To be called once, before any kernel runs.
    ///
    /// # Errors
    /// [`IsaError::InUse`] if another set is in use already: a process never mixes two.
    pub fn set_current(self) -> Result<(), IsaError> {
        match *CURRENT.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(IsaError::InUse { requested: self, current }),
        }
    }

    /// The greatest set, except that dot products of bf16 pairs are left out on Intel's cores: there one takes four
    /// times as long as a multiply-add of `f32`, which does half its work (measured on Emerald Rapids: 88 against
    /// 172 GFLOP/s on one core).
    fn fastest() -> Isa {
        match Isa::detected() {
            Isa(Level::Avx512Bf16) if is_intel() => Isa(Level::Avx512),
            greatest => greatest,
        }
    }

    #[cfg_attr(
        not(feature = "network"),
        expect(dead_code, reason = "layers choose their kernels by it")
    )]
    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// Runs `f` compiled for this set, as far as `f` is inlined: see [`vectorized`].
    #[inline]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        match self.0 {
            Level::Scalar | Level::Neon => f(),
            // SAFETY: `self` exists, so this processor has AVX2 and FMA.
            Level::Avx2 => unsafe { with_avx2(f) },
            // SAFETY: `self` exists, so this processor has AVX-512 F, BW, DQ and VL, and AVX2 and FMA as well.
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx => unsafe { with_avx512(f) },
        }
        // NEON belongs to what AArch64's targets are compiled for anyway.
        #[cfg(not(target_arch = "x86_64"))]
        f()
    }
}

static CURRENT: OnceLock<Isa> = OnceLock::new();

/// Evaluates an expression compiled for an instruction set. Functions and closures that it calls are compiled for
/// that set too if they are `#[inline(always)]`.
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
/// The processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
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

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Level {
    Level::Scalar
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Level {
    if std::arch::is_aarch64_feature_detected!("neon") { Level::Neon } else { Level::Scalar }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Level::Scalar;
    }
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
        return Level::Avx2;
    }
    if !has!("avx512bf16") {
        return Level::Avx512;
    }
    if !amx::usable() {
        return Level::Avx512Bf16;
    }
    Level::Amx
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Returns whether the processor has tiles with bf16 products and the operating system lets this process use them.
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
    use super::*;

    #[test]
    fn a_set_above_the_processors_cannot_be_made() {
        let available: Vec<Isa> = Isa::available().collect();
        assert_eq!(available.first(), Some(&Isa::SCALAR));
        assert_eq!(available.last(), Some(&Isa::detected()));
        assert!(available.contains(&Isa::current()));
        for level in Level::ALL {
            let made = Isa::from_name(level.name());
            if level.is_of_target() && level <= Isa::detected().level() {
                assert_eq!(made.map(Isa::level), Ok(level));
            } else {
                assert_eq!(made, Err(IsaError::Unsupported(level.name().to_owned())));
            }
        }
    }

    /// Names are known everywhere, sets of another architecture are available nowhere else.
    #[test]
    fn sets_of_another_architecture_are_unsupported() {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        if cfg!(target_arch = "aarch64") {
            assert_eq!(names, ["scalar", "neon"]);
        } else {
            assert!(!names.contains(&"neon"));
        }
        for name in ["neon", "avx2", "avx512", "avx512_bf16", "amx"] {
            if !names.contains(&name) {
                assert_eq!(Isa::from_name(name), Err(IsaError::Unsupported(name.to_owned())));
            }
        }
    }

    /// The features that the functions of a set are compiled for, asked for one by one.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_processor_has_every_feature_of_the_detected_set() {
        use std::arch::is_x86_feature_detected as has;
        let detected = Isa::detected().level();
        if detected >= Level::Avx2 {
            assert!(has!("avx2") && has!("fma"));
        }
        if detected >= Level::Avx512 {
            assert!(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"));
        }
        if detected >= Level::Avx512Bf16 {
            assert!(has!("avx512bf16"));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_available() {
        let error = Isa::from_name("mmx").unwrap_err();
        assert_eq!(error, IsaError::Unknown("mmx".to_owned()));
        let message = error.to_string();
        assert!(message.contains("`mmx`") && message.contains("scalar"), "{message}");
        assert!(message.ends_with(Isa::detected().name()), "{message}");
    }

    #[test]
    fn the_set_in_use_does_not_change() {
        let current = Isa::current();
        assert_eq!(current.set_current(), Ok(()));
        for requested in Isa::available().filter(|&isa| isa != current) {
            assert_eq!(requested.set_current(), Err(IsaError::InUse { requested, current }));
        }
        assert_eq!(Isa::current(), current);
    }
}
