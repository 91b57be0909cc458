//! Gradients, matched with the parameters that they belong to.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyList, PySet, PyString};

use super::buffers::{Header, Source};
use super::error;
use super::parameter::State;
use super::structure::{self, Entry, Node};

/// A parameter that has a gradient.
pub(super) struct Found<'py> {
    pub(super) parameter: usize,
    pub(super) weight: Bound<'py, PyAny>,
    pub(super) grad: Bound<'py, PyAny>,
    /// The state that was made for it in this step, where it had none or another rule's.
    pub(super) made: Option<Box<State>>,
}

impl Found<'_> {
    /// Puts a gradient that is to be read as the conjugates, or the negatives, of what its memory holds in memory of its own.
    /// Returns whether it looks as if it might be such a one.
    pub(super) fn resolve(&mut self, source: Source) -> PyResult<bool> {
        source.learn(&self.grad)?;
        if !Header::of(&self.grad, source).is_some_and(Header::may_be_lazy) {
            return Ok(false);
        }
        let is = |name| self.grad.call_method0(name)?.is_truthy();
        let py = self.grad.py();
        if is(intern!(py, "is_conj"))? || is(intern!(py, "is_neg"))? {
            self.grad = self.grad.call_method0("resolve_conj")?.call_method0("resolve_neg")?;
            self.weight.setattr(intern!(py, "grad"), &self.grad)?;
        }
        Ok(true)
    }
}

/// The groups of an optimizer.
pub(super) struct Groups {
    /// Whether gradients come in groups, and not in the one structure that the parameters have.
    grouped: bool,
    /// Whether gradients are attributes of their parameters.
    attached: bool,
    all: Vec<Group>,
    /// The entries of all groups that are mappings.
    entries: Option<Py<PySet>>,
    /// An entry that two groups have, if there is one: then one mapping can't hold the gradients of all.
    shared_entry: Option<String>,
}

/// The structure of a group's parameters, as given, and the way through it.
struct Group {
    params: Py<PyAny>,
    node: Node,
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
    /// Each as an attribute of its parameter.
    Attached,
}

impl Form {
    /// What the structure of a group's parameters is called.
    pub(super) fn params(self, group: usize) -> String {
        match self {
            Self::Single => "params".into(),
            Self::Groups | Self::Merged => format!("params[{group}][\"params\"]"),
            Self::Attached => format!("param_groups[{group}][\"params\"]"),
        }
    }

    /// What the gradient of a parameter of a group is called, which has this place in the group.
    pub(super) fn grad(self, group: usize, path: &str) -> String {
        match self {
            Self::Single | Self::Merged => format!("grads{path}"),
            Self::Groups => format!("grads[{group}]{path}"),
            Self::Attached => format!("{}{path}.grad", self.params(group)),
        }
    }
}

/// Called with parameter number, weight and gradient.
trait Visit<'py>: FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>) {}
impl<'py, F: FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>)> Visit<'py> for F {}

impl Groups {
    pub(super) fn new(grouped: bool, attached: bool) -> Self {
        Self { grouped, attached, all: Vec::new(), entries: None, shared_entry: None }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How gradients are given, unless in one mapping.
    pub(super) fn form(&self) -> Form {
        match (self.attached, self.grouped) {
            (true, _) => Form::Attached,
            (false, true) => Form::Groups,
            (false, false) => Form::Single,
        }
    }

    /// How gradients are given when there is one group more.
    pub(super) fn form_with_another(&self) -> Form {
        match self.form() {
            Form::Single if !self.all.is_empty() => Form::Groups,
            form => form,
        }
    }

    pub(super) fn push(&mut self, params: &Bound<'_, PyAny>, node: Node) -> PyResult<()> {
        let group = Group { params: params.clone().unbind(), node };
        let mut shared = None;
        if let Node::Mapping(entries) = &group.node {
            let py = params.py();
            let known = match &self.entries {
                Some(known) => known.bind(py).clone(),
                None => self.entries.insert(PySet::empty(py)?.unbind()).bind(py).clone(),
            };
            for (key, _) in entries {
                if known.contains(key)? {
                    shared = Some(structure::index_of(key.bind(py)));
                }
            }
            for (key, _) in entries {
                known.add(key)?;
            }
        }
        self.grouped = self.form_with_another() == Form::Groups;
        self.shared_entry = self.shared_entry.take().or(shared);
        self.all.push(group);
        Ok(())
    }

    /// What stands in the place of each parameter now: an array, unless it was replaced by something else.
    pub(super) fn weights<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // None is not walked into.
        let mut weights = vec![py.None().into_bound(py); count];
        for (i, group) in self.all.iter().enumerate() {
            let place = self.form().params(i);
            let params = group.params.bind(py).clone();
            walk(group, params, &place, &place, &mut |leaf, weight, _| weights[leaf] = weight)?;
        }
        Ok(weights)
    }

    /// Those of `count` parameters that have a gradient, with it, and the form that the gradients are in.
    pub(super) fn find<'py>(&self, grads: &Bound<'py, PyAny>, count: usize) -> PyResult<(Vec<Found<'py>>, Form)> {
        if grads.is_none() {
            return Err(error::no_gradients());
        }
        let mut found = Vec::with_capacity(count);
        let mut visit = |parameter, weight, grad| found.push(Found { parameter, weight, grad, made: None });
        let form = if !self.grouped {
            walk(&self.all[0], grads.clone(), &Form::Single.params(0), "grads", &mut visit)?;
            Form::Single
        } else if structure::is_mapping(grads) {
            self.walk_merged(grads, &mut visit)?;
            Form::Merged
        } else {
            self.walk_groups(grads, &mut visit)?;
            Form::Groups
        };
        Ok((found, form))
    }

    /// Those of `count` parameters that have a gradient as an attribute, with it.
    pub(super) fn find_attached<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Vec<Found<'py>>> {
        let name = intern!(py, "grad");
        let mut found = Vec::with_capacity(count);
        let mut raised = None;
        for (i, group) in self.all.iter().enumerate() {
            let place = Form::Attached.params(i);
            let params = group.params.bind(py).clone();
            walk(group, params, &place, &place, &mut |parameter, weight: Bound<'py, PyAny>, _| match weight
                .getattr(name)
            {
                Ok(grad) if grad.is_none() => {}
                Ok(grad) => found.push(Found { parameter, weight, grad, made: None }),
                Err(error) => raised = Some(error),
            })?;
        }
        raised.map_or(Ok(found), Err)
    }

    /// Gradients group by group: each a structure, or a mapping with the entry "params", as groups are given.
    fn walk_groups<'py>(&self, grads: &Bound<'py, PyAny>, visit: &mut impl Visit<'py>) -> PyResult<()> {
        if !structure::is_sequence(grads) {
            return Err(error::not_a_structure("grads", grads, "sequence of groups"));
        }
        if grads.len()? != self.all.len() {
            return Err(error::other_length("grads", grads.len()?, self.all.len(), None));
        }
        let key = PyString::intern(grads.py(), "params").into_any();
        for (i, group) in self.all.iter().enumerate() {
            let mut given = grads.get_item(i)?;
            let mut place = Form::Groups.grad(i, "");
            if structure::is_mapping(&given) && given.contains(&key)? && !group.has_entry(&key)? {
                given = given.get_item(&key)?;
                place += "[\"params\"]";
            }
            walk(group, given, &Form::Groups.params(i), &place, visit)?;
        }
        Ok(())
    }

    /// Gradients of all groups in one mapping.
    fn walk_merged<'py>(&self, grads: &Bound<'py, PyAny>, visit: &mut impl Visit<'py>) -> PyResult<()> {
        let py = grads.py();
        let mut all: Vec<&[Entry]> = Vec::with_capacity(self.all.len());
        for (i, group) in self.all.iter().enumerate() {
            let Node::Mapping(entries) = &group.node else {
                return Err(error::not_in_one_mapping(
                    self.all.len(),
                    &format!("{} is not a mapping", Form::Groups.params(i)),
                ));
            };
            all.push(entries);
        }
        if let Some(entry) = &self.shared_entry {
            return Err(error::not_in_one_mapping(self.all.len(), &format!("several of them have the entry {entry}")));
        }
        for (i, group) in self.all.iter().enumerate() {
            let walked = structure::walk_entries(all[i], group.params.bind(py), grads, visit);
            walked.map_err(|fault| fault.into_error(py, &Form::Merged.params(i), "grads"))?;
        }
        let params: Vec<_> = self.all.iter().map(|group| group.params.bind(py)).collect();
        let mappings: Vec<_> = all.into_iter().zip(params).collect();
        let checked = structure::check_no_other_entry(grads, &mappings);
        checked.map_err(|fault| fault.into_error(py, "params", "grads"))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for group in &self.all {
            visit.call(&group.params)?;
            group.node.traverse(visit)?;
        }
        visit.call(&self.entries)
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.entries = None;
    }
}

fn walk<'py>(
    group: &Group,
    grads: Bound<'py, PyAny>,
    params_place: &str,
    grads_place: &str,
    visit: &mut impl Visit<'py>,
) -> PyResult<()> {
    let py = grads.py();
    let walked = group.node.walk(group.params.bind(py).clone(), grads, visit);
    walked.map_err(|fault| fault.into_error(py, params_place, grads_place))
}

impl Group {
    fn has_entry(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Node::Mapping(entries) = &self.node else { return Ok(false) };
        for (other, _) in entries {
            if other.bind(key.py()).eq(key)? {
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
    let is_0d = Header::of(weight, Source::NumPy).is_some_and(Header::is_scalar);
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

/// Whether two lists hold lists of the same objects.
#[pyfunction]
pub(crate) fn same_objects(first: &Bound<'_, PyList>, second: &Bound<'_, PyList>) -> bool {
    same_items(first, second, |one, other| match (one.cast::<PyList>(), other.cast::<PyList>()) {
        (Ok(one), Ok(other)) => same_items(one, other, |one, other| one.is(other)),
        _ => false,
    })
}

fn same_items<'py>(
    first: &Bound<'py, PyList>,
    second: &Bound<'py, PyList>,
    same: impl Fn(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> bool,
) -> bool {
    first.len() == second.len() && first.iter().zip(second.iter()).all(|(one, other)| same(&one, &other))
}
