//! The JSON header of a safetensors file, as columns.
//!
//! ```text
//! {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, …}
//! ```
//!
//! A file may hold hundreds of thousands of small arrays, so there is no Python object per array but its name. Here is the syntax; which
//! dtypes, shapes and offsets are valid is decided in Python.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{Formatter, Result as FmtResult};

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::error;

/// The key that is not the name of an array.
const METADATA: &[u8] = b"__metadata__";

/// The metadata; the names of the arrays, sorted; the distinct pairs of dtype and shape; and of each array the index of its pair, and its two
/// offsets.
type Columns<'py> = (
    HashMap<String, String>,
    Vec<Bound<'py, PyString>>,
    Vec<(String, Bound<'py, PyTuple>)>,
    Vec<usize>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
);

/// Parses a header. Raises a `ValueError` if it does not have the form above, or if two arrays have the same name.
#[pyfunction]
pub(crate) fn parse_safetensors_header<'py>(py: Python<'py>, header: &[u8]) -> PyResult<Columns<'py>> {
    let text = str::from_utf8(header).map_err(error::value)?;
    let Header { metadata, mut arrays, layouts } = serde_json::from_str(text).map_err(error::value)?;
    if !arrays.is_sorted() {
        arrays.sort_unstable();
    }
    if let Some(pair) = arrays.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(error::two_arrays(&String::from_utf8_lossy(&pair[0].name)));
    }
    let names = arrays.iter().map(|array| python_text(py, &array.name)).collect::<PyResult<_>>()?;
    let pairs = layouts.into_iter().map(|(dtype, shape)| Ok((dtype, PyTuple::new(py, shape)?)));
    let column = |offset: fn(&Array<'_>) -> i64| arrays.iter().map(offset).collect::<Vec<_>>().into_pyarray(py);
    let (begins, ends) = (column(|array| array.offsets.0), column(|array| array.offsets.1));
    let indices = arrays.iter().map(|array| array.layout).collect();
    Ok((metadata, names, pairs.collect::<PyResult<_>>()?, indices, begins, ends))
}

fn python_text<'py>(py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match str::from_utf8(name) {
        Ok(name) => Ok(PyString::new(py, name)),
        Err(_) => PyString::from_encoded_object(&PyBytes::new(py, name), Some(c"utf-8"), Some(c"surrogatepass")),
    }
}

#[derive(Default)]
struct Header<'a> {
    metadata: HashMap<String, String>,
    arrays: Vec<Array<'a>>,
    layouts: Vec<Layout>,
}

/// Sorted by name; two arrays of one name are next to each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Array<'a> {
    name: Cow<'a, [u8]>,
    layout: usize,
    offsets: (i64, i64),
}

/// A dtype and a shape.
type Layout = (String, Vec<i64>);

/// The value of an entry.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: (i64, i64),
}

/// A key as UTF-8, in which JSON's escapes of single surrogates have the three bytes that UTF-8 excludes. Such bytes sort like code points.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'de>, A::Error> {
        let mut header = Header::default();
        let mut known: HashMap<Layout, usize> = HashMap::new();
        while let Some(Key(name)) = map.next_key()? {
            if *name == *METADATA {
                header.metadata = map.next_value()?;
                continue;
            }
            let info: Info = map.next_value().map_err(|error| in_entry(&name, &error))?;
            let next = known.len();
            let layout = *known.entry((info.dtype, info.shape)).or_insert(next);
            header.arrays.push(Array { name, layout, offsets: info.data_offsets });
        }
        let mut layouts: Vec<_> = known.into_iter().collect();
        layouts.sort_unstable_by_key(|&(_, index)| index);
        header.layouts = layouts.into_iter().map(|(layout, _)| layout).collect();
        Ok(header)
    }
}

fn in_entry<E: Error>(name: &[u8], error: &E) -> E {
    let name: String = String::from_utf8_lossy(name).chars().take(200).collect();
    E::custom(format!("entry '{name}' must have a valid dtype, shape and data_offsets: {error}"))
}
