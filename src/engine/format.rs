//! Stored formats: how a number lies in memory, and how it is loaded and stored.
//!
//! An [`Element`] is an array of bytes. Its alignment is 1, so an array at any address is a slice of cells; the compiler
//! turns a run of loads into one vector load.

use crate::rule::Real;

/// The stored formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit IEEE 754; computed in `f32`.
    F32,
    /// 64-bit IEEE 754; computed in `f64`.
    F64,
}

impl Dtype {
    /// Bytes of one number.
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
    /// Its format.
    const DTYPE: Dtype;
    /// What it is computed in.
    type Real: Real;
    /// All bits zero.
    const ZERO: Self;

    /// Bytes as cells, as many as there are whole ones.
    fn cells(bytes: &mut [u8]) -> &mut [Self];

    /// The number.
    fn load(self) -> Self::Real;
    /// Its stored form.
    fn store(value: Self::Real) -> Self;
}

impl Element for [u8; 4] {
    const DTYPE: Dtype = Dtype::F32;
    type Real = f32;
    const ZERO: Self = [0; 4];

    #[inline(always)]
    fn cells(bytes: &mut [u8]) -> &mut [Self] {
        bytes.as_chunks_mut().0
    }
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_ne_bytes(self)
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        value.to_ne_bytes()
    }
}

impl Element for [u8; 8] {
    const DTYPE: Dtype = Dtype::F64;
    type Real = f64;
    const ZERO: Self = [0; 8];

    #[inline(always)]
    fn cells(bytes: &mut [u8]) -> &mut [Self] {
        bytes.as_chunks_mut().0
    }
    #[inline(always)]
    fn load(self) -> f64 {
        f64::from_ne_bytes(self)
    }
    #[inline(always)]
    fn store(value: f64) -> Self {
        value.to_ne_bytes()
    }
}
