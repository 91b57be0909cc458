"""Layers of the Rust code: the modules of the bindings form no cycle, and nothing below imports them."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
# `super::name::…`, or the names of `super::{name, name::{…}}`.
IMPORT = re.compile(r"\bsuper::(?:(\w+)|\{([^;]*)\};)")
BRACES = re.compile(r"\{[^{}]*\}")


def imports(source: str) -> set[str]:
    """Return the sibling modules that the code of a module names."""
    code = re.sub(r"//.*", "", source)
    names = set()
    for name, listed in IMPORT.findall(code):
        while BRACES.search(listed):
            listed = BRACES.sub("", listed)
        names |= {name} if name else {entry.split("::")[0].strip() for entry in listed.split(",")}
    return names


def order(sources: dict[str, str]) -> list[str]:
    """Return the modules, each after those that it imports."""
    graph = {module: imports(source) & sources.keys() for module, source in sources.items()}
    return list(TopologicalSorter(graph).static_order())


def modules(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.rs") if path.stem != "mod"}


def test_modules_of_the_bindings_form_no_cycle():
    sources = modules(SOURCES / "python")
    assert imports(sources["stepper"]) >= {"step_plan", "error", "calls"}
    assert order(sources)[-1] == "stepper"


@pytest.mark.parametrize("back", ["use super::a::A;", "use super::{other, a::{A, B}};", "fn f() { super::a::f() }"])
def test_a_cycle_is_found(back):
    with pytest.raises(CycleError):
        order({"a": "use super::{b::B, c};", "b": "use super::c::C;", "c": back})
    assert order({"a": "use super::b::B;", "b": f"// {back}"}) == ["b", "a"]


@pytest.mark.parametrize(
    ("folder", "above"), [("rules", ("engine", "python")), ("engine", ("python",)), (".", ("engine", "rules"))]
)
def test_no_module_imports_a_layer_above(folder, above):
    paths = list((SOURCES / folder).rglob("*.rs")) if folder != "." else [SOURCES / "rule.rs"]
    assert paths
    for path in paths:
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        assert not [layer for layer in above if re.search(rf"\bcrate::{layer}\b", code)], path
