//! Structures of arrays: one array, a sequence, a mapping, or these nested.
//!
//! A structure is walked once when it is given, which names each array in it, and then at every step along the same
//! way, together with the gradients. Containers are read again each time: an array put in place of another is found.

use pyo3::exceptions::PyIndexError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PySequence, PySet, PyString, PyTuple};

use super::buffers::{Header, Source};
use super::error;

/// No structure of parameters is nested as deep as this; one that contains itself is.
const MAX_DEPTH: usize = 64;

/// A structure, its leaves numbered in order.
pub(super) enum Node {
    Leaf(usize),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// What a structure's arrays are called.
#[derive(Clone)]
pub(super) struct Place {
    /// As state dicts say: `layers.0.w`.
    pub(super) name: String,
    /// As Python code says, after the name of the structure: `["layers"][0]["w"]`.
    pub(super) path: String,
}

impl Place {
    fn child(&self, key: &str, index: &str) -> Self {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        Self { name, path: format!("{}[{index}]", self.path) }
    }
}

/// The index of a mapping's entry, as Python code says it.
pub(super) fn index_of(key: &Bound<'_, PyAny>) -> String {
    match key.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) {
        Some(text) => format!("{text:?}"),
        None => key.repr().map_or_else(|_| "?".into(), |text| text.to_string()),
    }
}

/// The part of a name that a key makes. UTF-8 has no surrogates: they are escaped, since replaced by U+FFFD they would make
/// the names of different keys equal.
fn name_of(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = key.str()?;
    if let Ok(text) = text.to_str() {
        return Ok(text.to_owned());
    }
    let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
    Ok(String::from_utf8_lossy(bytes.cast::<PyBytes>()?.as_bytes()).into_owned())
}

/// The keys of mappings as a set, so that looking for one takes no longer where there are many.
pub(super) fn keys_of<'py>(py: Python<'py>, mappings: &[&[Entry]]) -> PyResult<Bound<'py, PySet>> {
    PySet::new(py, mappings.iter().copied().flatten().map(|(key, _)| key))
}

impl Node {
    /// Reads a structure, called `root` in messages, and calls `leaf(place, array)`, which numbers it, for each array.
    pub(super) fn build<'py>(
        object: &Bound<'py, PyAny>,
        source: Source,
        root: &str,
        leaf: &mut impl FnMut(Place, &Bound<'py, PyAny>) -> usize,
    ) -> PyResult<Self> {
        Self::build_at(object, source, root, &Place { name: String::new(), path: String::new() }, 0, leaf)
    }

    fn build_at<'py>(
        object: &Bound<'py, PyAny>,
        source: Source,
        root: &str,
        place: &Place,
        depth: usize,
        leaf: &mut impl FnMut(Place, &Bound<'py, PyAny>) -> usize,
    ) -> PyResult<Self> {
        if depth > MAX_DEPTH {
            return Err(error::too_deep(root, MAX_DEPTH));
        }
        if Header::of(object, source).is_some() {
            return Ok(Self::Leaf(leaf(place.clone(), object)));
        }
        if let Ok(mapping) = object.cast::<PyMapping>() {
            let mut entries = Vec::new();
            for item in mapping.items()?.iter() {
                let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract()?;
                let child = place.child(&name_of(&key)?, &index_of(&key));
                entries.push((key.unbind(), Self::build_at(&value, source, root, &child, depth + 1, leaf)?));
            }
            return Ok(Self::Mapping(entries));
        }
        if is_sequence(object) {
            let mut items = Vec::new();
            for (i, item) in object.try_iter()?.enumerate() {
                let child = place.child(&i.to_string(), &i.to_string());
                items.push(Self::build_at(&item?, source, root, &child, depth + 1, leaf)?);
            }
            return Ok(Self::Sequence(items));
        }
        Err(error::not_an_array(&format!("{root}{}", place.path), object))
    }

    /// Walks parameters and gradients together, and calls `visit(leaf, parameter, gradient)` for each that has one. Parameters
    /// that are walked with themselves may have got other entries since the optimizer was made.
    pub(super) fn walk<'py>(
        &self,
        params: Bound<'py, PyAny>,
        grads: Bound<'py, PyAny>,
        visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
    ) -> Result<(), Fault> {
        if grads.is_none() {
            return Ok(());
        }
        match self {
            Self::Leaf(leaf) => visit(*leaf, params, grads),
            Self::Sequence(nodes) => {
                let given = sequence_len(&grads)
                    .ok_or_else(|| Fault::grads(Problem::NotA(grads.clone().unbind(), "sequence")))?;
                if given != nodes.len() && !grads.is(&params) {
                    return Err(Fault::grads(Problem::Length(given, nodes.len(), sequence_len(&params))));
                }
                for (i, node) in nodes.iter().enumerate() {
                    let param = item(&params, i).map_err(|raised| {
                        if raised.is_instance_of::<PyIndexError>(params.py()) {
                            Fault::gone(i.to_string())
                        } else {
                            Fault::from(raised)
                        }
                    })?;
                    let grad = item(&grads, i).map_err(|raised| Fault::grads(Problem::Raised(raised)))?;
                    node.walk(param, grad, visit).map_err(|fault| fault.under(|| i.to_string()))?;
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
}

/// An entry of a mapping: its key, and what it holds.
pub(super) type Entry = (Py<PyAny>, Node);

/// Walks the entries of a mapping of parameters, each of which must be in the mapping of gradients.
pub(super) fn walk_entries<'py>(
    entries: &[Entry],
    params: &Bound<'py, PyAny>,
    grads: &Bound<'py, PyAny>,
    visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
) -> Result<(), Fault> {
    if !is_mapping(grads) {
        return Err(Fault::grads(Problem::NotA(grads.clone().unbind(), "mapping")));
    }
    for (key, node) in entries {
        let key = key.bind(grads.py());
        let Some(param) = entry(params, key)? else { return Err(Fault::gone(index_of(key))) };
        let Some(grad) = entry(grads, key)? else {
            return Err(Fault::grads(Problem::Missing).under(|| index_of(key)));
        };
        node.walk(param, grad, visit).map_err(|fault| fault.under(|| index_of(key)))?;
    }
    Ok(())
}

/// Checks that a mapping of gradients, which has the entries of all these mappings of parameters, has no other.
pub(super) fn check_no_other_entry(
    grads: &Bound<'_, PyAny>,
    mappings: &[(&[Entry], &Bound<'_, PyAny>)],
) -> Result<(), Fault> {
    if grads.len()? == mappings.iter().map(|(entries, _)| entries.len()).sum::<usize>() {
        return Ok(());
    }
    let known = keys_of(grads.py(), &mappings.iter().map(|(entries, _)| *entries).collect::<Vec<_>>())?;
    for key in grads.try_iter()? {
        let key = key?;
        if !known.contains(&key)? {
            let mut is_new = false;
            for (_, params) in mappings {
                is_new = is_new || entry(params, &key)?.is_some();
            }
            return Err(Fault::grads(Problem::Unexpected(is_new)).under(|| index_of(&key)));
        }
    }
    Ok(())
}

impl Node {
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Leaf(_) => Ok(()),
            Self::Sequence(nodes) => nodes.iter().try_for_each(|node| node.traverse(visit)),
            Self::Mapping(entries) => entries.iter().try_for_each(|(key, node)| {
                visit.call(key)?;
                node.traverse(visit)
            }),
        }
    }
}

/// Why a walk ended early: the problem, and the indices that lead to it, innermost first.
pub(super) struct Fault {
    problem: Problem,
    indices: Vec<String>,
}

enum Problem {
    NotA(Py<PyAny>, &'static str),
    /// How many gradients were given, how many parameters there were when the optimizer was made, and how many there are now.
    Length(usize, usize, Option<usize>),
    Missing,
    /// Whether the parameters have got such an entry since the optimizer was made.
    Unexpected(bool),
    Gone,
    Raised(PyErr),
}

impl From<PyErr> for Fault {
    fn from(raised: PyErr) -> Self {
        Self::grads(Problem::Raised(raised))
    }
}

impl Fault {
    fn grads(problem: Problem) -> Self {
        Self { problem, indices: Vec::new() }
    }

    fn gone(index: String) -> Self {
        Self { problem: Problem::Gone, indices: vec![index] }
    }

    fn under(mut self, index: impl FnOnce() -> String) -> Self {
        self.indices.push(index());
        self
    }

    /// The error to raise, where the structure of gradients is called `grads` and that of parameters `params`.
    pub(super) fn into_error(self, py: Python<'_>, params: &str, grads: &str) -> PyErr {
        let path = self.indices.iter().rev().fold(String::new(), |path, index| path + "[" + index + "]");
        let place = format!("{grads}{path}");
        match self.problem {
            Problem::NotA(given, kind) => error::not_a_structure(&place, given.bind(py), kind),
            Problem::Length(given, expected, now) => {
                error::other_length(&place, given, expected, now.filter(|now| *now != expected))
            }
            Problem::Missing => error::missing(&place),
            Problem::Unexpected(is_new) => error::unexpected(&place, is_new),
            Problem::Gone => error::gone(&format!("{params}{path}")),
            Problem::Raised(raised) => raised,
        }
    }
}

/// Whether it is a sequence, and not one of characters or bytes.
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
    // A subclass of dict may make up what is missing, so it is asked first.
    if object.is_instance_of::<PyDict>() && !object.contains(key)? {
        return Ok(None);
    }
    match object.get_item(key) {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.is_instance_of::<pyo3::exceptions::PyKeyError>(object.py()) => Ok(None),
        Err(raised) => Err(raised),
    }
}
