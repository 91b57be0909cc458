//! All errors of the bindings. A message says where, what is allowed, and what was given.

use std::fmt::Display;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyType};

use super::calls;
use crate::engine::parallel::MAX_THREADS;
use crate::engine::simd::Level;
use crate::engine::{Decay, Dtype};
use crate::rule::OutOfRange;
use crate::rules;

pub(super) fn value(message: impl Display) -> PyErr {
    PyValueError::new_err(message.to_string())
}

fn type_error(message: impl Display) -> PyErr {
    PyTypeError::new_err(message.to_string())
}

/// The name of an object's type.
fn type_of(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string())
}

/// An attribute, such as a shape, as Python prints it.
fn attribute(object: &Bound<'_, PyAny>, name: &str) -> String {
    object.getattr(name).and_then(|value| value.str()).map_or_else(|_| "unknown".into(), |text| text.to_string())
}

fn repr(object: &Bound<'_, PyAny>) -> String {
    object.repr().map_or_else(|_| type_of(object), |text| text.to_string())
}

/// The type of an object that is no array and no structure of arrays, and what to give instead.
fn described(given: &Bound<'_, PyAny>) -> String {
    let has = |name| given.hasattr(name).unwrap_or(false);
    let kind = type_of(given);
    let module = given.get_type().module().map_or_else(|_| String::new(), |name| name.to_string());
    let hint = match module.split('.').next() {
        // Generators, sets and views of dictionaries, which can't be read again by index.
        _ if has("__iter__") && !has("__getitem__") => "; give list(...) of it, since it is read at every step",
        Some("torch") => "; lrcore.torch has the optimizers of PyTorch's tensors",
        Some("jax" | "jaxlib") => "; lrcore.jax has the optimizers of JAX arrays",
        _ => "",
    };
    format!("{kind}{hint}")
}

pub(super) fn not_an_array(place: &str, given: &Bound<'_, PyAny>) -> PyErr {
    type_error(format!("{place} must be a NumPy array, or a sequence or mapping of them, got {}", described(given)))
}

pub(super) fn not_a_gradient(place: &str, given: &Bound<'_, PyAny>) -> PyErr {
    type_error(format!("{place} must be a NumPy array, or None to skip it, got {}", described(given)))
}

pub(super) fn masked(place: &str, is_grad: bool) -> PyErr {
    let remedy = if is_grad { "give grads.filled(0.0)" } else { "give its data, weights.data" };
    type_error(format!("{place} is a masked array, whose mask a step would ignore: {remedy}"))
}

/// A container returns another array at each access.
pub(super) fn not_kept(place: &str) -> PyErr {
    value(format!(
        "{place} is another array at each access, with memory of its own, so that no step would have an effect: hold the arrays in a \
         dict(…) or list(…) of the container, and give that as params"
    ))
}

pub(super) fn no_gradients() -> PyErr {
    type_error("grads must have the structure of params, got None")
}

pub(super) fn not_a_structure(place: &str, given: &Bound<'_, PyAny>, kind: &str) -> PyErr {
    type_error(format!("{place} must be a {kind} like params, or None to skip it, got {}", described(given)))
}

pub(super) fn bad_dtype(place: &str, array: &Bound<'_, PyAny>) -> PyErr {
    let dtype =
        array.getattr("dtype").and_then(|dtype| dtype.repr()).map_or_else(|_| "?".into(), |text| text.to_string());
    type_error(format!("{place} has {dtype}; allowed are float32 and float64 in native byte order"))
}

pub(super) fn other_dtype(place: &str, array: &Bound<'_, PyAny>, of: (&str, &Bound<'_, PyAny>)) -> PyErr {
    type_error(differs("dtype", place, array, of))
}

/// As `other_dtype`, of a gradient. To convert one of the other precision only rounds, so the message proposes it.
pub(super) fn other_dtype_of_grad(place: &str, array: &Bound<'_, PyAny>, of: (&str, &Bound<'_, PyAny>)) -> PyErr {
    let message = differs("dtype", place, array, of);
    let dtype = attribute(array, "dtype");
    type_error(match dtype.rsplit('.').next() {
        Some("float32" | "float64") => {
            let convert = if array.hasattr("astype").unwrap_or(false) { "astype" } else { "to" };
            format!("{message}; give {place}.{convert}({}.dtype)", of.0)
        }
        _ => message,
    })
}

/// A tensor without dense memory in this process.
pub(super) fn no_memory(place: &str, tensor: &Bound<'_, PyAny>) -> PyErr {
    let layout = attribute(tensor, "layout");
    if layout != "torch.strided" {
        return PyRuntimeError::new_err(format!(
            "{place} is sparse, {layout}; allowed are dense tensors: nn.Embedding(sparse=False) has dense gradients, and \
             torch.optim.SparseAdam, torch.optim.SGD and torch.optim.Adagrad take sparse ones"
        ));
    }
    let device = attribute(tensor, "device");
    if device != "cpu" {
        return value(format!(
            "{place} is on the device {device}; allowed is the CPU, and torch.optim has optimizers for it"
        ));
    }
    type_error(format!("{place} is a {} without plain memory of its own", type_of(tensor)))
}

pub(super) fn other_shape(place: &str, array: &Bound<'_, PyAny>, of: (&str, &Bound<'_, PyAny>)) -> PyErr {
    value(differs("shape", place, array, of))
}

fn differs(what: &str, place: &str, array: &Bound<'_, PyAny>, (of_place, of): (&str, &Bound<'_, PyAny>)) -> String {
    format!("{place} has {what} {}, {of_place} has {}", attribute(array, what), attribute(of, what))
}

pub(super) fn read_only(place: &str) -> PyErr {
    value(format!("{place} is read-only"))
}

pub(super) fn share_memory(place: &str, other: &str) -> PyErr {
    value(format!("{place} and {other} share memory"))
}

pub(super) fn overlaps_itself(place: &str) -> PyErr {
    value(format!("{place} has elements that share memory with each other; give a copy"))
}

/// `now` is the present number of parameters, if that is another one than when the optimizer was made.
pub(super) fn other_length(place: &str, given: usize, expected: usize, now: Option<usize>) -> PyErr {
    let entries = if given == 1 { "entry" } else { "entries" };
    value(match now {
        None => format!("{place} has {given} {entries}, params has {expected} there"),
        Some(now) => format!(
            "{place} has {given} {entries}, params had {expected} there when the optimizer was made, and has {now} now; \
             add_param_group takes new ones, and None skips one"
        ),
    })
}

pub(super) fn state_of_no_rule(parameter: &str, given: &[&str]) -> PyErr {
    value(format!("state[{parameter:?}] has the arrays {given:?}, which are not the state of any rule"))
}

pub(super) fn not_in_one_mapping(groups: usize, why: &str) -> PyErr {
    value(format!("grads must be a sequence of {groups}, one for each group, since {why}"))
}

pub(super) fn missing(place: &str) -> PyErr {
    value(format!("{place} is missing; give None to skip that parameter"))
}

pub(super) fn unexpected(place: &str, is_new: bool) -> PyErr {
    value(if is_new {
        format!(
            "{place} is unexpected: the entry was added to params after the optimizer was made; \
             add_param_group({{\"params\": ...}}) takes it"
        )
    } else {
        format!("{place} is unexpected: params has no such entry")
    })
}

pub(super) fn gone(place: &str) -> PyErr {
    value(format!("{place} is gone since the optimizer was made"))
}

/// Step counts that change each time they are read.
pub(super) fn counts_change() -> PyErr {
    PyRuntimeError::new_err("counts in the state of a parameter are changed while they are read")
}

/// A hyperparameter that is out of the range of a dtype.
pub(super) fn unfit(group: usize, OutOfRange { name, value: given }: OutOfRange, dtype: Dtype) -> PyErr {
    let (least, most) = match dtype {
        Dtype::F32 => (f64::from(f32::from_bits(1)), f64::from(f32::MAX)),
        Dtype::F64 => (f64::from_bits(1), f64::MAX),
    };
    value(format!(
        "param_groups[{group}]: {name} is {given:e}, which no {} number is near; allowed are 0 and magnitudes from {least:.1e} to \
         {most:.1e}",
        dtype.name()
    ))
}

/// A step got gradients while accumulated ones wait.
pub(super) fn batches_wait(count: u64) -> PyErr {
    let (batches, wait) = if count == 1 { ("micro-batch", "waits") } else { ("micro-batches", "wait") };
    PyRuntimeError::new_err(format!(
        "{count} {batches} {wait} for a step, which step(grads) would leave out: use opt.step() for their mean, \
         opt.accumulate(grads) and then opt.step() for the mean with grads, or opt.discard_accumulated() to drop them"
    ))
}

/// A noise scale is wanted, and a micro-batch has another weight than those that wait.
pub(super) fn unequal_weights(waiting: f64, given: f64) -> PyErr {
    value(format!(
        "noise_scale needs micro-batches of equal weight, since their gradients must be equally noisy: those that wait have \
         {waiting}, got {given}"
    ))
}

pub(super) fn empty(place: &str) -> PyErr {
    value(format!("{place} holds no parameters"))
}

pub(super) fn too_deep(place: &str, limit: usize) -> PyErr {
    value(format!("{place} is nested more than {limit} deep; does it contain itself?"))
}

/// Two parameters of one group have the same name.
pub(super) fn same_name(name: &str, place: &str, other: &str) -> PyErr {
    value(format!(
        "{place}: there is a parameter named {name:?} already, {other}; names are keys joined by dots: rename one of the keys"
    ))
}

/// A parameter has the name of one of another group, even with its group's name as prefix.
pub(super) fn same_name_in_groups(name: &str, place: &str, group: &str) -> PyErr {
    value(format!(
        "{place}: there is a parameter named {name:?} already, of another group; give this group a \"name\" other than \
         {group:?}"
    ))
}

pub(super) fn unknown_rule(name: &str) -> PyErr {
    value(format!("there is no rule {name:?}; there are {}", rules::NAMES.join(", ")))
}

pub(super) fn wrong_count(rule: &str, expected: &[&str], given: usize) -> PyErr {
    value(format!("rule {rule:?} takes {} values ({}), got {given}", expected.len(), expected.join(", ")))
}

pub(super) fn unknown_decay(given: &str) -> PyErr {
    let known: Vec<_> = Decay::NAMES.iter().map(|(name, _)| format!("{name:?}")).collect();
    value(format!("decay must be one of {}, got {given:?}", known.join(", ")))
}

pub(super) fn unknown_norm(given: &str) -> PyErr {
    value(format!("the norm must be \"1\", \"2\" or \"inf\", got {given:?}"))
}

pub(super) fn unknown_average(given: &str) -> PyErr {
    value(format!("the average must be \"ema\" or \"swa\", got {given:?}"))
}

pub(super) fn bad_index(given: usize) -> PyErr {
    value(format!("index {given} is out of range"))
}

pub(super) fn bad_level(given: &str) -> PyErr {
    let available: Vec<_> = Level::available().map(|level| format!("{:?}", level.name())).collect();
    value(format!("the SIMD level must be one of {} on this machine, got {given:?}", available.join(", ")))
}

pub(super) fn bad_function(given: &str) -> PyErr {
    value(format!("there is no function {given:?}"))
}

pub(super) fn two_arrays(name: &str) -> PyErr {
    value(format!("there are two arrays named {name:?}"))
}

pub(super) fn bad_thread_count(given: &Bound<'_, PyAny>) -> PyErr {
    let message = format!("the number of threads must be in [1, {MAX_THREADS}], got {}", repr(given));
    if given.is_instance_of::<PyInt>() { value(message) } else { type_error(message) }
}

pub(super) fn busy() -> PyErr {
    PyRuntimeError::new_err(if calls::is_cut_off() {
        "this optimizer is in the middle of a step, or was when this process was forked, and its weights may be half moved: \
         make a new one, and load a checkpoint"
    } else {
        "this optimizer is in use by another thread, or in the middle of a step"
    })
}

pub(super) fn no_dlpack_api(kind: &Bound<'_, PyType>) -> PyErr {
    let name = kind.qualname().map_or_else(|_| "?".into(), |name| name.to_string());
    type_error(format!(
        "{name} has no C functions for the exchange of tensors by DLPack 1.3; PyTorch has them from 2.10 on"
    ))
}
