//! Stored formats: how a number lies in memory.
//!
//! An [`Element`] is an array of bytes, of alignment 1, so an array at any address is a slice of elements. The compiler turns
//! consecutive loads into one vector load.

use crate::rule::Real;

/// A stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit IEEE 754; computed in `f32`.
    F32,
    /// 64-bit IEEE 754; computed in `f64`.
    F64,
}

impl Dtype {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The largest finite number.
    #[must_use]
    pub const fn largest(self) -> f64 {
        match self {
            Self::F32 => f32::MAX as f64,
            Self::F64 => f64::MAX,
        }
    }

    /// NumPy's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }
}

/// One stored number, in native byte order.
pub(super) trait Element: Copy + Send + Sync + 'static {
    const DTYPE: Dtype;
    type Real: Real;
    const ZERO: Self;

    /// Views bytes as elements, as many as fit.
    fn from_bytes(bytes: &mut [u8]) -> &mut [Self];

    fn load(self) -> Self::Real;
    fn store(value: Self::Real) -> Self;
}

macro_rules! element {
    ($($bytes:ty: $real:ident, $dtype:ident;)*) => {$(
        impl Element for $bytes {
            const DTYPE: Dtype = Dtype::$dtype;
            type Real = $real;
            const ZERO: Self = [0; size_of::<Self>()];

            #[inline(always)]
            fn from_bytes(bytes: &mut [u8]) -> &mut [Self] {
                bytes.as_chunks_mut().0
            }
            #[inline(always)]
            fn load(self) -> $real {
                $real::from_ne_bytes(self)
            }
            #[inline(always)]
            fn store(value: $real) -> Self {
                value.to_ne_bytes()
            }
        }
    )*};
}
element! {
    [u8; 4]: f32, F32;
    [u8; 8]: f64, F64;
}
