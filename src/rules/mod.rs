//! The update rules, one family a file, and the one list of their names.

pub mod adagrad;
pub mod adam;
pub mod rmsprop;
pub mod sgd;

use crate::rule::Optimizer;

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
    "sgd" => sgd::Sgd,
    "sgd_momentum" => sgd::Momentum<false>,
    "sgd_nesterov" => sgd::Momentum<true>,
    "adam" => adam::Adam<false>,
    "adam_amsgrad" => adam::Adam<true>,
    "rmsprop" => rmsprop::RmsProp<false, false>,
    "rmsprop_momentum" => rmsprop::RmsProp<false, true>,
    "rmsprop_centered" => rmsprop::RmsProp<true, false>,
    "rmsprop_centered_momentum" => rmsprop::RmsProp<true, true>,
    "adagrad" => adagrad::Adagrad,
}
