//! The update rules: a module for each family, and the one list of their names.

pub mod accumulate;
#[cfg(feature = "probes")]
pub mod bandwidth;

use crate::rule::Optimizer;

/// An operation on an optimizer whose type is found by name: see [`find`].
pub trait Visitor {
    /// The result.
    type Output;

    /// Called with the optimizer's type.
    fn visit<const N: usize, O: Optimizer<N>>(self) -> Self::Output;
}

macro_rules! registry {
    ($($module:ident: $($name:literal => $optimizer:ty),*;)*) => {
        $(pub mod $module;)*

        /// The name of every rule, in the order of the list. Bandwidth probes are not among them.
        pub const NAMES: &[&str] = &[$($($name),*),*];

        /// Calls the visitor with the rule of that name, or with a bandwidth probe; `None` if there is none.
        pub fn find<V: Visitor>(name: &str, visitor: V) -> Option<V::Output> {
            match name {
                $($($name => Some(visitor.visit::<_, $optimizer>()),)*)*
                #[cfg(feature = "probes")]
                _ => bandwidth::find(name, visitor),
                #[cfg(not(feature = "probes"))]
                _ => None,
            }
        }
    };
}

// An entry declares a file of this folder as a module and names its rules. rustfmt does not look for modules in a macro, so
// `make check` and `make format` name these files.
registry! {
    sgd: "sgd" => sgd::Sgd, "sgd_momentum" => sgd::Momentum<false>, "sgd_nesterov" => sgd::Momentum<true>;
    adam: "adam" => adam::Adam<false>, "adam_amsgrad" => adam::Adam<true>;
    rmsprop: "rmsprop" => rmsprop::RmsProp<false, false>, "rmsprop_momentum" => rmsprop::RmsProp<false, true>,
        "rmsprop_centered" => rmsprop::RmsProp<true, false>, "rmsprop_centered_momentum" => rmsprop::RmsProp<true, true>;
    adagrad: "adagrad" => adagrad::Adagrad;
    lion: "lion" => lion::Lion;
}
