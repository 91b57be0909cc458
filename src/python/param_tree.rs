//! Structures of parameters (pytrees): an array, or a sequence or mapping of structures.
//!
//! Creating a group builds a [`ParamTree`], which assigns each array a number and a path. Each step walks the tree together with
//! the gradients, and reads the Python containers again, so that it uses arrays that the program has replaced.

use pyo3::exceptions::{PyIndexError, PyKeyError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PySequence, PySet, PyString, PyTuple};

use super::array_view::{ArrayKind, ArrayView};
use super::error;
use super::param_path::{ParamPath, key_in_index};

/// The maximum nesting depth. A deeper structure is assumed to contain itself, and is an error.
const MAX_DEPTH: usize = 64;

/// A structure whose arrays are numbered in order.
pub(super) enum ParamTree {
    Array(usize),
    Sequence(Vec<ParamTree>),
    Mapping(Vec<TreeEntry>),
}

/// A key of a mapping, and the structure of its value.
pub(super) type TreeEntry = (Py<PyAny>, ParamTree);

/// Builds the [`ParamTree`] of a structure, and collects its arrays and their paths.
pub(super) struct TreeBuilder<'a, 'py> {
    pub(super) kind: ArrayKind,
    /// The Python expression of the structure, for error messages: `params`.
    pub(super) root: &'a str,
    /// The number of the first array.
    pub(super) first: usize,
    /// The arrays read so far, and their paths.
    pub(super) arrays: Vec<Bound<'py, PyAny>>,
    pub(super) paths: Vec<ParamPath>,
}

impl<'py> TreeBuilder<'_, 'py> {
    pub(super) fn build(&mut self, object: &Bound<'py, PyAny>) -> PyResult<ParamTree> {
        self.build_at(object, ParamPath::default(), 0)
    }

    fn build_at(&mut self, object: &Bound<'py, PyAny>, path: ParamPath, depth: usize) -> PyResult<ParamTree> {
        if depth > MAX_DEPTH {
            return Err(error::too_deep(self.root, MAX_DEPTH));
        }
        if ArrayView::of(object, self.kind).is_some() {
            self.arrays.push(object.clone());
            self.paths.push(path);
            return Ok(ParamTree::Array(self.first + self.arrays.len() - 1));
        }
        if let Ok(mapping) = object.cast::<PyMapping>() {
            let mut entries = Vec::new();
            for item in mapping.items()?.iter() {
                let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract()?;
                let child = path.entry(&key)?;
                entries.push((key.unbind(), self.build_at(&value, child, depth + 1)?));
            }
            return Ok(ParamTree::Mapping(entries));
        }
        if is_sequence(object) {
            let items = object.try_iter()?.enumerate();
            let items = items.map(|(i, item)| self.build_at(&item?, path.item(i), depth + 1));
            return Ok(ParamTree::Sequence(items.collect::<PyResult<_>>()?));
        }
        Err(error::not_an_array(&format!("{}{}", self.root, path.indices), object))
    }
}

impl ParamTree {
    /// Walks parameters and gradients together, and calls `visit(number, parameter, gradient)` for each parameter that has a gradient.
    /// With the parameters as `grads`, visits all parameters; entries that were added since the tree was built are then ignored.
    pub(super) fn walk<'py>(
        &self,
        params: Bound<'py, PyAny>,
        grads: Bound<'py, PyAny>,
        visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
    ) -> Result<(), TreeMismatch> {
        if grads.is_none() {
            return Ok(());
        }
        match self {
            Self::Array(number) => visit(*number, params, grads),
            Self::Sequence(nodes) => {
                let not_one = || MismatchKind::NotA(grads.clone().unbind(), "sequence");
                let given = sequence_len(&grads).ok_or_else(not_one)?;
                if given != nodes.len() && !grads.is(&params) {
                    return Err(MismatchKind::Length(given, nodes.len(), sequence_len(&params)).into());
                }
                for (i, node) in nodes.iter().enumerate() {
                    let param = item(&params, i).map_err(|raised| {
                        let is_gone = raised.is_instance_of::<PyIndexError>(params.py());
                        if is_gone { TreeMismatch::gone(i.to_string()) } else { raised.into() }
                    })?;
                    let grad = item(&grads, i)?;
                    node.walk(param, grad, visit).map_err(|mismatch| mismatch.under(|| i.to_string()))?;
                }
            }
            Self::Mapping(entries) => {
                walk_entries(entries, &params, &grads, visit)?;
                if !grads.is(&params) {
                    check_no_other_entry(&grads, &[(entries, &params)])?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Array(_) => Ok(()),
            Self::Sequence(nodes) => nodes.iter().try_for_each(|node| node.traverse(visit)),
            Self::Mapping(entries) => entries.iter().try_for_each(|(key, node)| {
                visit.call(key)?;
                node.traverse(visit)
            }),
        }
    }
}

/// Walks the entries of a mapping of parameters. The mapping of gradients must have every key in `entries`.
pub(super) fn walk_entries<'py>(
    entries: &[TreeEntry],
    params: &Bound<'py, PyAny>,
    grads: &Bound<'py, PyAny>,
    visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
) -> Result<(), TreeMismatch> {
    if !is_mapping(grads) {
        return Err(MismatchKind::NotA(grads.clone().unbind(), "mapping").into());
    }
    for (key, node) in entries {
        let key = key.bind(grads.py());
        let Some(param) = entry(params, key)? else { return Err(TreeMismatch::gone(key_in_index(key))) };
        let Some(grad) = entry(grads, key)? else {
            return Err(TreeMismatch::from(MismatchKind::Missing).under(|| key_in_index(key)));
        };
        node.walk(param, grad, visit).map_err(|mismatch| mismatch.under(|| key_in_index(key)))?;
    }
    Ok(())
}

/// Checks that a mapping of gradients has no keys besides those of `mappings`. All of those must be present already.
pub(super) fn check_no_other_entry(
    grads: &Bound<'_, PyAny>,
    mappings: &[(&[TreeEntry], &Bound<'_, PyAny>)],
) -> Result<(), TreeMismatch> {
    if grads.len()? == mappings.iter().map(|(entries, _)| entries.len()).sum::<usize>() {
        return Ok(());
    }
    // A set makes the search linear in the number of entries.
    let known = PySet::new(grads.py(), mappings.iter().flat_map(|(entries, _)| *entries).map(|(key, _)| key))?;
    for key in grads.try_iter()? {
        let key = key?;
        if !known.contains(&key)? {
            let mut is_new = false;
            for (_, params) in mappings {
                is_new = is_new || entry(params, &key)?.is_some();
            }
            return Err(TreeMismatch::from(MismatchKind::Unexpected { is_new }).under(|| key_in_index(&key)));
        }
    }
    Ok(())
}

/// A difference between the structures of parameters and gradients.
pub(super) struct TreeMismatch {
    kind: MismatchKind,
    /// The indices from the root to the difference, innermost first.
    indices: Vec<String>,
}

enum MismatchKind {
    NotA(Py<PyAny>, &'static str),
    /// The number of gradients, the number of parameters when the optimizer was created, and the current number of parameters.
    Length(usize, usize, Option<usize>),
    Missing,
    Unexpected {
        /// Whether the entry was added to the parameters after the optimizer was created.
        is_new: bool,
    },
    Gone,
    Raised(PyErr),
}

impl From<MismatchKind> for TreeMismatch {
    fn from(kind: MismatchKind) -> Self {
        Self { kind, indices: Vec::new() }
    }
}

impl From<PyErr> for TreeMismatch {
    fn from(raised: PyErr) -> Self {
        MismatchKind::Raised(raised).into()
    }
}

impl TreeMismatch {
    fn gone(index: String) -> Self {
        Self { kind: MismatchKind::Gone, indices: vec![index] }
    }

    fn under(mut self, index: impl FnOnce() -> String) -> Self {
        self.indices.push(index());
        self
    }

    /// The error to raise. `params` and `grads` are the Python expressions of the two structures.
    pub(super) fn into_error(self, py: Python<'_>, params: &str, grads: &str) -> PyErr {
        let indices = self.indices.iter().rev().fold(String::new(), |indices, index| indices + "[" + index + "]");
        let place = format!("{grads}{indices}");
        match self.kind {
            MismatchKind::NotA(given, kind) => error::not_a_structure(&place, given.bind(py), kind),
            MismatchKind::Length(given, expected, now) => {
                error::other_length(&place, given, expected, now.filter(|now| *now != expected))
            }
            MismatchKind::Missing => error::missing(&place),
            MismatchKind::Unexpected { is_new } => error::unexpected(&place, is_new),
            MismatchKind::Gone => error::gone(&format!("{params}{indices}")),
            MismatchKind::Raised(raised) => raised,
        }
    }
}

/// Whether an object is a sequence other than a string or bytes.
pub(super) fn is_sequence(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
        || (object.cast::<PySequence>().is_ok()
            && !object.is_instance_of::<PyString>()
            && object.cast::<PyBytes>().is_err())
}

fn sequence_len(object: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(list) = object.cast::<PyList>() {
        return Some(list.len());
    }
    if is_sequence(object) { object.len().ok() } else { None }
}

#[inline]
fn item<'py>(object: &Bound<'py, PyAny>, index: usize) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(list) = object.cast::<PyList>() {
        list.get_item(index)
    } else if let Ok(tuple) = object.cast::<PyTuple>() {
        tuple.get_item(index)
    } else {
        object.get_item(index)
    }
}

#[inline]
pub(super) fn is_mapping(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyDict>() || object.cast::<PyMapping>().is_ok()
}

#[inline]
fn entry<'py>(object: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        return dict.get_item(key);
    }
    // Reading a missing key of a dict subclass may create the entry (`defaultdict`), so membership is checked first.
    if object.is_instance_of::<PyDict>() && !object.contains(key)? {
        return Ok(None);
    }
    match object.get_item(key) {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.is_instance_of::<PyKeyError>(object.py()) => Ok(None),
        Err(raised) => Err(raised),
    }
}
