//! The update rules, one family a file, and the one list of their names.

mod adagrad;
mod adam;
mod rmsprop;
mod sgd;

use crate::rule::Optimizer;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use rmsprop::RmsProp;
pub use sgd::{Momentum, Sgd};

/// What to do with the optimizer that a name stands for.
pub trait Visitor {
    /// What comes of it.
    type Output;

    /// Called with the optimizer's type.
    fn visit<const N: usize, O: Optimizer<N>>(self) -> Self::Output;
}

macro_rules! registry {
    ($($name:literal => $optimizer:ty,)*) => {
        /// Every name, in the order of the list.
        pub const NAMES: &[&str] = &[$($name),*];

        /// Calls the visitor with the optimizer of that name, if there is one.
        pub fn find<V: Visitor>(name: &str, visitor: V) -> Option<V::Output> {
            match name {
                $($name => Some(visitor.visit::<_, $optimizer>()),)*
                _ => None,
            }
        }
    };
}

registry! {
    "sgd" => Sgd,
    "sgd_momentum" => Momentum<false>,
    "sgd_nesterov" => Momentum<true>,
    "adam" => Adam<false>,
    "adam_amsgrad" => Adam<true>,
    "rmsprop" => RmsProp<false, false>,
    "rmsprop_momentum" => RmsProp<false, true>,
    "rmsprop_centered" => RmsProp<true, false>,
    "rmsprop_centered_momentum" => RmsProp<true, true>,
    "adagrad" => Adagrad,
}
