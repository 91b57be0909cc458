//! Parameter groups, and the gradients that belong to their parameters.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyFloat, PySet};

use super::array_view::{ArrayKind, ArrayView};
use super::error;
use super::param_path::{GradLayout, key_in_index};
use super::param_tree::{self, ParamTree, TreeEntry};

/// A parameter that has a gradient in a step.
pub(super) struct GradSlot<'py> {
    pub(super) parameter: usize,
    pub(super) weight: Bound<'py, PyAny>,
    pub(super) grad: Bound<'py, PyAny>,
    /// Whether the gradient was [resolved](Self::resolve) in this step.
    pub(super) is_resolved: bool,
}

impl<'py> GradSlot<'py> {
    pub(super) fn new(parameter: usize, weight: Bound<'py, PyAny>, grad: Bound<'py, PyAny>) -> Self {
        Self { parameter, weight, grad, is_resolved: false }
    }

    /// Materialises a lazily conjugated or negated gradient. Returns whether the gradient might have been one.
    pub(super) fn resolve(&mut self, kind: ArrayKind) -> PyResult<bool> {
        kind.learn(&self.grad)?;
        self.is_resolved = true;
        if !ArrayView::of(&self.grad, kind).is_some_and(ArrayView::may_be_lazy) {
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

    /// Converts the scalar gradient of a 0-d array, whose arithmetic gives scalars, to an array. A Python number gets the weight's dtype, a
    /// NumPy scalar keeps its own.
    pub(super) fn convert_scalar(&mut self, kind: ArrayKind) -> PyResult<()> {
        static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
        let py = self.grad.py();
        let is_0d = ArrayView::of(&self.weight, ArrayKind::NumPy).is_some_and(ArrayView::is_0d);
        if !is_0d || ArrayView::of(&self.grad, kind).is_some() {
            return Ok(());
        }
        let numpy = NUMPY.get_or_try_init(py, || py.import("numpy").map(Bound::unbind))?.bind(py);
        let asarray = numpy.getattr("asarray")?;
        if self.grad.is_instance(&numpy.getattr("generic")?)? {
            self.grad = asarray.call1((&self.grad,))?;
        } else if self.grad.is_instance_of::<PyFloat>() {
            let dtype = [("dtype", self.weight.getattr("dtype")?)].into_py_dict(py)?;
            self.grad = asarray.call((&self.grad,), Some(&dtype))?;
        }
        Ok(())
    }
}

/// The groups of an optimizer.
pub(super) struct ParamGroups {
    /// Whether gradients are given by group, and not in the one structure of the parameters.
    is_grouped: bool,
    /// Whether gradients are attributes of their parameters.
    has_attributes: bool,
    all: Vec<GroupTree>,
    /// The keys of all groups that are mappings.
    keys: Option<Py<PySet>>,
    /// A key that two groups have: then one mapping can't hold the gradients of all.
    shared_key: Option<String>,
}

/// The structure of a group's parameters as it was given, and how it was read.
struct GroupTree {
    params: Py<PyAny>,
    tree: ParamTree,
}

/// Called with the number of a parameter, its weight and its gradient.
trait Visit<'py>: FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>) {}
impl<'py, F: FnMut(usize, Bound<'py, PyAny>, Bound<'py, PyAny>)> Visit<'py> for F {}

impl ParamGroups {
    pub(super) fn new(is_grouped: bool, has_attributes: bool) -> Self {
        Self { is_grouped, has_attributes, all: Vec::new(), keys: None, shared_key: None }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How gradients are given, unless they are merged.
    pub(super) fn layout(&self) -> GradLayout {
        match (self.has_attributes, self.is_grouped) {
            (true, _) => GradLayout::Attributes,
            (false, true) => GradLayout::Grouped,
            (false, false) => GradLayout::Single,
        }
    }

    /// How gradients will be given when there is one more group.
    pub(super) fn layout_with_another(&self) -> GradLayout {
        match self.layout() {
            GradLayout::Single if !self.all.is_empty() => GradLayout::Grouped,
            layout => layout,
        }
    }

    pub(super) fn push(&mut self, params: &Bound<'_, PyAny>, tree: ParamTree) -> PyResult<()> {
        let mut shared = None;
        if let ParamTree::Mapping(entries) = &tree {
            let py = params.py();
            let known = match &self.keys {
                Some(known) => known.bind(py).clone(),
                None => self.keys.insert(PySet::empty(py)?.unbind()).bind(py).clone(),
            };
            for (key, _) in entries {
                if known.contains(key)? {
                    shared = Some(key_in_index(key.bind(py)));
                }
            }
            for (key, _) in entries {
                known.add(key)?;
            }
        }
        self.is_grouped = self.layout_with_another() == GradLayout::Grouped;
        self.shared_key = self.shared_key.take().or(shared);
        self.all.push(GroupTree { params: params.clone().unbind(), tree });
        Ok(())
    }

    /// The present objects in the places of all `count` parameters: arrays, unless they were replaced by something else.
    pub(super) fn weights<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // A parameter that was replaced by None is not visited.
        let mut weights = vec![py.None().into_bound(py); count];
        for (i, group) in self.all.iter().enumerate() {
            let root = self.layout().params(i);
            let params = group.params.bind(py).clone();
            group.walk(params, &root, &root, &mut |number, weight, _| weights[number] = weight)?;
        }
        Ok(weights)
    }

    /// The gradients of `count` parameters, without those that are None, and how they were given.
    pub(super) fn find_grads<'py>(
        &self,
        grads: &Bound<'py, PyAny>,
        count: usize,
    ) -> PyResult<(Vec<GradSlot<'py>>, GradLayout)> {
        if grads.is_none() {
            return Err(error::no_gradients());
        }
        let mut slots = Vec::with_capacity(count);
        let mut visit = |parameter, weight, grad| slots.push(GradSlot::new(parameter, weight, grad));
        let layout = if !self.is_grouped {
            let group = self.all.first().ok_or_else(|| error::bad_index(0))?;
            group.walk(grads.clone(), &GradLayout::Single.params(0), "grads", &mut visit)?;
            GradLayout::Single
        } else if param_tree::is_mapping(grads) {
            self.walk_merged(grads, &mut visit)?;
            GradLayout::Merged
        } else {
            self.walk_grouped(grads, &mut visit)?;
            GradLayout::Grouped
        };
        Ok((slots, layout))
    }

    /// The attributes `grad` of `count` parameters, without those that are None.
    pub(super) fn find_grad_attributes<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Vec<GradSlot<'py>>> {
        let name = intern!(py, "grad");
        let mut slots = Vec::with_capacity(count);
        let mut raised = None;
        for (i, group) in self.all.iter().enumerate() {
            let root = GradLayout::Attributes.params(i);
            let mut visit = |parameter, weight: Bound<'py, PyAny>, _| match weight.getattr(name) {
                Ok(grad) if grad.is_none() => {}
                Ok(grad) => slots.push(GradSlot::new(parameter, weight, grad)),
                Err(error) => raised = Some(error),
            };
            group.walk(group.params.bind(py).clone(), &root, &root, &mut visit)?;
        }
        raised.map_or(Ok(slots), Err)
    }

    /// Walks gradients by group: each a structure, or a mapping with the entry "params", as groups are given.
    fn walk_grouped<'py>(&self, grads: &Bound<'py, PyAny>, visit: &mut impl Visit<'py>) -> PyResult<()> {
        if !param_tree::is_sequence(grads) {
            return Err(error::not_a_structure("grads", grads, "sequence of groups"));
        }
        if grads.len()? != self.all.len() {
            return Err(error::other_length("grads", grads.len()?, self.all.len(), None));
        }
        let key = intern!(grads.py(), "params").as_any();
        for (i, group) in self.all.iter().enumerate() {
            let mut given = grads.get_item(i)?;
            let mut root = GradLayout::Grouped.grad(i, "");
            if param_tree::is_mapping(&given) && given.contains(key)? && !group.has_entry(key)? {
                given = given.get_item(key)?;
                root += "[\"params\"]";
            }
            group.walk(given, &GradLayout::Grouped.params(i), &root, visit)?;
        }
        Ok(())
    }

    /// Walks the gradients of all groups in one mapping.
    fn walk_merged<'py>(&self, grads: &Bound<'py, PyAny>, visit: &mut impl Visit<'py>) -> PyResult<()> {
        let py = grads.py();
        let mut mappings: Vec<(&[TreeEntry], _)> = Vec::with_capacity(self.all.len());
        for (i, group) in self.all.iter().enumerate() {
            let ParamTree::Mapping(entries) = &group.tree else {
                let why = format!("{} is not a mapping", GradLayout::Grouped.params(i));
                return Err(error::not_in_one_mapping(self.all.len(), &why));
            };
            mappings.push((entries, group.params.bind(py)));
        }
        if let Some(key) = &self.shared_key {
            return Err(error::not_in_one_mapping(self.all.len(), &format!("several of them have the entry {key}")));
        }
        for (i, (entries, params)) in mappings.iter().enumerate() {
            let walked = param_tree::walk_entries(entries, params, grads, visit);
            walked.map_err(|mismatch| mismatch.into_error(py, &GradLayout::Merged.params(i), "grads"))?;
        }
        let checked = param_tree::check_no_other_entry(grads, &mappings);
        checked.map_err(|mismatch| mismatch.into_error(py, "params", "grads"))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for group in &self.all {
            visit.call(&group.params)?;
            group.tree.traverse(visit)?;
        }
        visit.call(&self.keys)
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.keys = None;
    }
}

impl GroupTree {
    /// Walks the parameters with gradients. The roots are both structures as Python code writes them.
    fn walk<'py>(
        &self,
        grads: Bound<'py, PyAny>,
        params_root: &str,
        grads_root: &str,
        visit: &mut impl Visit<'py>,
    ) -> PyResult<()> {
        let py = grads.py();
        let walked = self.tree.walk(self.params.bind(py).clone(), grads, visit);
        walked.map_err(|mismatch| mismatch.into_error(py, params_root, grads_root))
    }

    fn has_entry(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let ParamTree::Mapping(entries) = &self.tree else { return Ok(false) };
        for (other, _) in entries {
            if other.bind(key.py()).eq(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
