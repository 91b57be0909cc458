//! Gradients, matched with the parameters that they belong to.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;

use super::buffers::Header;
use super::error;
use super::structure::{self, Entry, Fault, Node};

/// A parameter that has a gradient.
pub(super) struct Found<'py> {
    pub(super) parameter: usize,
    pub(super) weight: Bound<'py, PyAny>,
    pub(super) grad: Bound<'py, PyAny>,
}

/// The structure of a group's parameters, as given, and the way through it.
pub(super) struct Group {
    pub(super) params: Py<PyAny>,
    pub(super) node: Node,
}

/// How gradients are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the one structure that the parameters have.
    Single,
    /// A structure for each group.
    Groups,
    /// One mapping with the entries of all groups.
    Merged,
}

impl Form {
    /// What the structure of a group's parameters is called.
    pub(super) fn params(self, group: usize) -> String {
        match self {
            Self::Single => "params".into(),
            Self::Groups | Self::Merged => format!("params[{group}][\"params\"]"),
        }
    }

    /// What the structure of a group's gradients is called.
    pub(super) fn grads(self, group: usize) -> String {
        match self {
            Self::Single | Self::Merged => "grads".into(),
            Self::Groups => format!("grads[{group}]"),
        }
    }
}

/// The parameters that have a gradient, with it, and the form that the gradients are in.
pub(super) fn find<'py>(
    groups: &[Group],
    grouped: bool,
    grads: &Bound<'py, PyAny>,
) -> PyResult<(Vec<Found<'py>>, Form)> {
    if grads.is_none() {
        return Err(error::not_a_structure("grads", grads, "structure"));
    }
    let mut found = Vec::new();
    let mut visit = |parameter, weight, grad| found.push(Found { parameter, weight, grad });
    let form = if !grouped {
        walk(&groups[0], grads.clone(), &Form::Single.params(0), "grads", &mut visit)?;
        Form::Single
    } else if structure::is_mapping(grads) {
        walk_merged(groups, grads, &mut visit)?;
        Form::Merged
    } else {
        walk_groups(groups, grads, &mut visit)?;
        Form::Groups
    };
    Ok((found, form))
}

fn walk<'py>(
    group: &Group,
    grads: Bound<'py, PyAny>,
    params_place: &str,
    grads_place: &str,
    visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
) -> PyResult<()> {
    let py = grads.py();
    let walked = group.node.walk(group.params.bind(py).clone(), grads, visit);
    walked.map_err(|fault| fault.into_error(py, params_place, grads_place))
}

/// Gradients group by group: each a structure, or a mapping with the entry "params", as groups are given.
fn walk_groups<'py>(
    groups: &[Group],
    grads: &Bound<'py, PyAny>,
    visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
) -> PyResult<()> {
    if !structure::is_sequence(grads) {
        return Err(error::not_a_structure("grads", grads, "sequence of groups"));
    }
    if grads.len()? != groups.len() {
        return Err(error::other_length("grads", grads.len()?, groups.len()));
    }
    for (i, group) in groups.iter().enumerate() {
        let mut given = grads.get_item(i)?;
        let mut place = Form::Groups.grads(i);
        if structure::is_mapping(&given) && given.contains("params")? && !group.has_entry(grads.py(), "params")? {
            given = given.get_item("params")?;
            place += "[\"params\"]";
        }
        walk(group, given, &Form::Groups.params(i), &place, visit)?;
    }
    Ok(())
}

/// Gradients of all groups in one mapping.
fn walk_merged<'py>(
    groups: &[Group],
    grads: &Bound<'py, PyAny>,
    visit: &mut impl FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>),
) -> PyResult<()> {
    let py = grads.py();
    let mut all: Vec<&[Entry]> = Vec::with_capacity(groups.len());
    for (i, group) in groups.iter().enumerate() {
        let Node::Mapping(entries) = &group.node else { return Err(error::not_in_one_mapping(i, groups.len())) };
        let walked = structure::walk_entries(entries, group.params.bind(py), grads, visit);
        walked.map_err(|fault| fault.into_error(py, &Form::Merged.params(i), "grads"))?;
        all.push(entries);
    }
    let fault = |fault: Fault| fault.into_error(py, "params", "grads");
    structure::check_no_other_entry(grads, &all).map_err(fault)
}

impl Group {
    fn has_entry(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        let Node::Mapping(entries) = &self.node else { return Ok(false) };
        for (other, _) in entries {
            if other.bind(py).eq(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A scalar gradient as an array, where the weight is a 0-d array: the arithmetic of those gives scalars. A Python number
/// takes the weight's dtype; a NumPy scalar keeps its own.
pub(super) fn scalar_as_array<'py>(
    grad: &Bound<'py, PyAny>,
    weight: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = grad.py();
    let is_0d = Header::of(weight).is_some_and(|weight| weight.shape().is_empty());
    if !is_0d {
        return Ok(None);
    }
    let numpy = NUMPY.get_or_try_init(py, || py.import("numpy").map(Bound::unbind))?.bind(py);
    let asarray = numpy.getattr("asarray")?;
    if grad.is_instance(&numpy.getattr("generic")?)? {
        asarray.call1((grad,)).map(Some)
    } else if grad.is_instance_of::<pyo3::types::PyFloat>() {
        let dtype = [("dtype", weight.getattr("dtype")?)].into_py_dict(py)?;
        asarray.call((grad,), Some(&dtype)).map(Some)
    } else {
        Ok(None)
    }
}
