//! What parameters and their gradients are called, in state dicts and in messages.

use std::collections::{HashMap, HashSet};
use std::mem;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::error;

/// The path from the structure of a group to one of its parameters.
#[derive(Clone, Default)]
pub(super) struct ParamPath {
    /// The parameter's name in a state dict: `layers.0.w`.
    pub(super) name: String,
    /// The indices in Python, after the name of the structure: `["layers"][0]["w"]`.
    pub(super) indices: String,
}

impl ParamPath {
    /// The path of an item of a sequence.
    pub(super) fn item(&self, index: usize) -> Self {
        self.child(&index.to_string(), &index.to_string())
    }

    /// The path of an entry of a mapping.
    pub(super) fn entry(&self, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(self.child(&key_in_name(key)?, &key_in_index(key)))
    }

    fn child(&self, key: &str, index: &str) -> Self {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        Self { name, indices: format!("{}[{index}]", self.indices) }
    }
}

/// Makes the names of a group's parameters unique. Names from keys stay unless one is taken; others are prefixed with the group's name,
/// which is given if there are other groups.
pub(super) fn unique_names(
    paths: &mut [ParamPath],
    taken: &HashSet<String>,
    group: Option<&str>,
    is_named_by_keys: bool,
    root: &str,
) -> PyResult<()> {
    let group = group.filter(|_| !is_named_by_keys || paths.iter().any(|path| taken.contains(&path.name)));
    for path in paths.iter_mut() {
        path.name = match (group, path.name.is_empty()) {
            (Some(group), true) => group.to_owned(),
            (Some(group), false) => format!("{group}.{}", path.name),
            (None, true) => "0".to_owned(),
            (None, false) => mem::take(&mut path.name),
        };
        if let Some(group) = group.filter(|_| taken.contains(&path.name)) {
            return Err(error::same_name_in_groups(&path.name, &format!("{root}{}", path.indices), group));
        }
    }
    let mut firsts = HashMap::with_capacity(paths.len());
    for (number, path) in paths.iter().enumerate() {
        if let Some(first) = firsts.insert(path.name.as_str(), number) {
            let [this, first] = [number, first].map(|number| format!("{root}{}", paths[number].indices));
            return Err(error::same_name(&path.name, &this, &first));
        }
    }
    Ok(())
}

/// A key as Python code writes it.
pub(super) fn key_in_index(key: &Bound<'_, PyAny>) -> String {
    match key.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) {
        Some(text) => format!("{text:?}"),
        None => key.repr().map_or_else(|_| "?".into(), |text| text.to_string()),
    }
}

/// A key as a part of a name. Surrogates, which UTF-8 does not have, are escaped: replaced by U+FFFD they would make different keys equal.
fn key_in_name(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = key.str()?;
    if let Ok(text) = text.to_str() {
        return Ok(text.to_owned());
    }
    let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
    Ok(String::from_utf8_lossy(bytes.cast::<PyBytes>()?.as_bytes()).into_owned())
}

/// How gradients are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GradLayout {
    /// In the structure of the parameters, of which there is one.
    Single,
    /// In a sequence of structures, one for each group.
    Grouped,
    /// In one mapping, with the entries of all groups.
    Merged,
    /// As the attribute `grad` of each parameter.
    Attributes,
}

impl GradLayout {
    /// The structure of a group's parameters, as Python code writes it.
    pub(super) fn params(self, group: usize) -> String {
        match self {
            Self::Single => "params".into(),
            Self::Grouped | Self::Merged => format!("params[{group}][\"params\"]"),
            Self::Attributes => format!("param_groups[{group}][\"params\"]"),
        }
    }

    /// The gradient of a parameter of a group, as Python code writes it.
    pub(super) fn grad(self, group: usize, indices: &str) -> String {
        match self {
            Self::Single | Self::Merged => format!("grads{indices}"),
            Self::Grouped => format!("grads[{group}]{indices}"),
            Self::Attributes => format!("{}{indices}.grad", self.params(group)),
        }
    }
}
