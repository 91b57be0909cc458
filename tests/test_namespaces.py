"""Completion and help of the public modules."""

import importlib
import inspect
import pkgutil
import pydoc
import re
import rlcompleter
import subprocess
import sys

import numpy as np
import pytest

import lrcore
from lrcore.optim.option_docs import DESCRIPTIONS
from lrcore.optim.options import Options
from support.cases import NAMES, OPTIMIZERS

OPTIONAL = {"lrcore.torch": "torch", "lrcore.jax": "jax", "lrcore.sklearn": "sklearn"}
PUBLIC = ["lrcore"] + [f"lrcore.{one.name}" for one in pkgutil.iter_modules(lrcore.__path__) if one.name[0] != "_"]
# Commands, which users run but do not import.
PUBLIC = [name for name in PUBLIC if name not in ("lrcore.bench", "lrcore.info")]


def module(name):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_dir_of_a_public_module_lists_its_public_names_and_nothing_else(name):
    shown = dir(module(name))
    assert shown == sorted(module(name).__all__)
    for one in shown:
        getattr(module(name), one)


def test_every_module_with_lazy_attributes_lists_them():
    for info in pkgutil.walk_packages(lrcore.__path__, "lrcore."):
        source = importlib.util.find_spec(info.name).origin
        if source.endswith(".py"):
            with open(source, encoding="utf-8") as file:
                text = file.read()
            assert ("def __getattr__" in text) <= ("def __dir__" in text), info.name


def test_a_new_interpreter_completes_lazy_names():
    code = "import lrcore, rlcompleter; print(rlcompleter.Completer({'lrcore': lrcore}).attr_matches('lrcore.fi'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert "lrcore.find_lr(" in found.stdout


@pytest.mark.parametrize("name", ["find_lr", "save", "load", "latest", "sweep", "tune", "AdamW"])
def test_help_of_the_package_shows_its_functions(name):
    assert re.search(rf"\b{name}\b", pydoc.plain(pydoc.render_doc(lrcore)))


def test_imported_modules_are_not_attributes_of_the_package():
    for leaked in ("Any", "TYPE_CHECKING", "import_module"):
        assert not hasattr(lrcore, leaked)
        assert not hasattr(lrcore.schedules, leaked)


def test_an_unknown_attribute_gets_a_suggestion():
    for namespace, name, meant in ((lrcore, "Adamw", "AdamW"), (lrcore.schedules, "Cosin", "Cosine")):
        code = f"import {namespace.__name__} as m; m.{name}"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603
        assert f"Did you mean: '{meant}'" in found.stderr


def test_completion_of_a_group_shows_public_names_and_keys():
    group = lrcore.SGD([np.zeros(1)]).param_groups[0]
    shown = [name for name in dir(group) if not name.startswith("_")]
    assert {"keys", "items", "update", "get", "params", "name", "hyperparameters"} <= set(shown)
    assert not {"replace", "follow", "at", "edited", "needs_resolving", "listeners"} & set(shown)
    assert group._ipython_key_completions_() == list(group)
    assert any(one.startswith("group.update") for one in rlcompleter.Completer({"group": group}).attr_matches("group."))


def test_every_option_is_described():
    assert list(DESCRIPTIONS) == list(Options.__annotations__)


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
def test_signature_and_docstring_of_a_class_have_every_option(cls):
    parameters = inspect.signature(cls).parameters
    for name in Options.__annotations__:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert re.search(rf"^    {name}: ", inspect.getdoc(cls), re.MULTILINE)
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    # The defaults are the actual ones.
    given = {name: parameters[name].default for name in Options.__annotations__}
    plain, told = cls([np.zeros(1)]), cls([np.zeros(1)], **given)
    assert plain.options == told.options
    assert plain.param_groups[0].hyperparameters == told.param_groups[0].hyperparameters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_signature_and_docstring_of_the_integrations_have_every_option(library, name):
    cls = getattr(module(f"lrcore.{library}"), name)
    for option in Options.__annotations__:
        if (library, option) == ("torch", "noise_scale"):
            continue
        assert option in inspect.signature(cls).parameters
        assert re.search(rf"^    {option}: ", inspect.getdoc(cls), re.MULTILINE)


def test_a_subclass_keeps_its_own_signature_and_docstring():
    class Mine(lrcore.SGD):
        """A docstring of its own."""

        def __init__(self, params, *, scale=1.0):
            super().__init__(params, lr=scale)

    assert list(inspect.signature(Mine).parameters) == ["params", "scale"]
    assert Mine.__doc__ == "A docstring of its own."


def test_importing_the_package_imports_no_optional_module():
    code = "import sys, numpy; before = set(sys.modules); import lrcore; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    new = found.stdout.split()
    late = {"csv", "html", "json", "difflib", "pathlib", "sqlite3", "multiprocessing", "matplotlib", "torch", "jax"}
    late |= {f"lrcore.{name}" for name in ("checkpoint", "finder", "history", "scaling", "sweeps", "noise", "info")}
    late |= {"fractions", *(f"lrcore.schedules.{name}" for name in ("bounded", "compound", "intervals", "warmup"))}
    assert not late & set(new)
