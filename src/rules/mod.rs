//! The update rules, one family a file, and the one list of their names.

pub mod adagrad;
pub mod adam;
pub mod rmsprop;
pub mod roof;
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
    (rules { $($name:literal => $optimizer:ty,)* } probes { $($probe:literal => $probed:ty,)* }) => {
        /// The name of every rule, in the order of the list. Probes, which measure a machine, are not among them.
        pub const NAMES: &[&str] = &[$($name),*];

        /// Calls the visitor with the rule or probe of that name, if there is one.
        pub fn find<V: Visitor>(name: &str, visitor: V) -> Option<V::Output> {
            match name {
                $($name => Some(visitor.visit::<_, $optimizer>()),)*
                $($probe => Some(visitor.visit::<_, $probed>()),)*
                _ => None,
            }
        }
    };
}

registry! {
    rules {
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
    probes {
        "roof_0" => roof::Roof<0>,
        "roof_1" => roof::Roof<1>,
        "roof_2" => roof::Roof<2>,
        "roof_3" => roof::Roof<3>,
    }
}
