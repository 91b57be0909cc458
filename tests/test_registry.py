"""Every registered rule has all its pieces, and every public name says what it is."""

import ast
import inspect
import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.optim.hyperparameter import Flag, Number
from support.cases import CASES, NAMES, OPTIMIZERS, RULES, each_optimizer

TESTS = Path(__file__).parent
PAGES = TESTS.parent / "docs" / "reference"
SCHEDULES = [getattr(schedules, name) for name in schedules.CLASSES]
SECTIONS = ["Args", "Raises", "Examples", "State", "References", "Note"]


def groups_at_every_corner(optimizer):
    """Groups of an optimizer with each flag on and off, and each number that is 0 by default at 0 and above."""
    default = optimizer([np.zeros(1)]).param_groups[0]
    corners = {}
    for name, kind in optimizer._kinds().items():
        if isinstance(kind, Flag):
            corners[name] = [False, True]
        elif isinstance(kind, Number) and default[name] == 0.0:
            corners[name] = [0.0, 0.5]
    for values in itertools.product(*corners.values()):
        try:
            yield optimizer([np.zeros(1)], **dict(zip(corners, values, strict=True))).param_groups[0]
        except ValueError:  # these values contradict each other
            continue


def line_of(name, page):
    """The row of a table that begins with a name, or nothing."""
    rows = (PAGES / page).read_text(encoding="utf-8").splitlines()
    return next((row for row in rows if re.match(rf"\| *`{name}\b", row)), "")


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_declared_by_an_optimizer(rule):
    assert any(rule in optimizer._declaration.rules for optimizer in OPTIMIZERS), f"no optimizer declares {rule!r}"


@each_optimizer
def test_the_documentation_has_the_row_of_an_optimizer(optimizer):
    declaration, name = optimizer._declaration, optimizer.__name__
    assert line_of(name, "optimizers.md") == declaration.row(name), "docs/reference/optimizers.md has another row"
    for rule in declaration.rules:
        assert all(f"`{state}`" in declaration.state for state in RULES[rule][1])


@each_optimizer
def test_an_optimizer_chooses_registered_rules_and_has_their_hyperparameters(optimizer):
    for group in groups_at_every_corner(optimizer):
        rule = optimizer._rule(group)
        assert rule in RULES, f"src/rules/mod.rs has no {rule!r}"
        lacking = set(RULES[rule][0]) - group.at(0).keys()
        assert not lacking, f"{optimizer.__name__} has no value for {lacking} of the rule {rule!r}"


@each_optimizer
def test_an_optimizer_has_a_case_for_each_rule_that_it_chooses(optimizer):
    chosen = {optimizer._rule(group) for group in groups_at_every_corner(optimizer)}
    tried = {case.rule for case in CASES if case.optimizer is optimizer}
    assert set(optimizer._declaration.rules) == chosen == tried


@each_optimizer
def test_the_first_case_of_an_optimizer_has_its_defaults(optimizer):
    assert optimizer._declaration.cases[0][1] == {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_names_the_rule_that_its_optimizer_chooses(case):
    assert case.optimizer._rule(case.make([np.zeros(1)]).param_groups[0]) == case.rule


@each_optimizer
def test_an_optimizers_docstring_has_every_section(optimizer):
    found = re.findall(r"^(\w+):$", inspect.getdoc(optimizer), re.MULTILINE)
    assert [section for section in SECTIONS if section not in found] == []


@each_optimizer
def test_an_optimizers_docstring_explains_every_argument(optimizer):
    explained = re.findall(r"^    (\w+): ", inspect.getdoc(optimizer), re.MULTILINE)
    assert [name for name in inspect.signature(optimizer).parameters if name not in explained] == []


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
def test_a_schedule_is_in_the_documentation(schedule):
    name = schedule.__name__
    assert line_of(name, "schedules.md"), f"docs/reference/schedules.md has no line that begins with {name}"


@pytest.mark.parametrize("name", [*lrcore.__all__, *(f"schedules.{name}" for name in schedules.__all__)])
def test_a_public_name_exists_and_has_a_docstring(name):
    value = lrcore
    for part in name.split("."):
        value = getattr(value, part)
    if not isinstance(value, str):  # the version
        assert inspect.getdoc(value), f"lrcore.{name} has no docstring"


def test_optimizers_with_as_many_rules_and_cases_have_as_many_tests(request):
    """No optimizer is left out of a test because PyTorch lacks it, or has more tests because it has more arguments.

    Optimizers with one rule: of the others, variants have tests of their own.
    """
    if request.config.option.keyword or any("::" in argument for argument in request.config.args):
        pytest.skip("a part of the tests is selected")
    ids = [item.nodeid for item in request.session.items]
    alike = defaultdict(dict)
    for optimizer in OPTIMIZERS:
        rules, cases, name = optimizer._declaration.rules, optimizer._declaration.cases, optimizer.__name__
        if len(rules) == 1:
            alike[len(cases)][name] = Counter(one.partition("[")[0] for one in ids if name.lower() in one.lower())
    for (first, expected), *others in (tests.items() for tests in alike.values()):
        for name, tests in others:
            assert (expected - tests, tests - expected) == ({}, {}), f"of {first} only, and of {name} only"


def lists_of_optimizers(source):
    """Yield the lines of literals with three optimizers or more: lists, tuples, sets, and dictionaries."""

    def names_in(node):
        for one in ast.walk(node):
            name = getattr(one, "attr", None) or getattr(one, "id", None) or getattr(one, "value", None)
            if isinstance(name, str) and name in NAMES:
                yield name

    if len(set(re.findall(r"\w+", source)) & set(NAMES)) < 3:  # so most files need not be parsed
        return
    for node in ast.walk(ast.parse(source)):
        is_literal = isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict)
        if is_literal and len(set(names_in(node))) >= 3:
            yield node.lineno


PLANTED = [
    "KINDS = [lrcore.SGD, lrcore.Adam, lrcore.AdamW]",
    'each = pytest.mark.parametrize("name", ("SGD", "Adam", "AdamW"))',
    "MAKERS = {'a': lambda w: lrcore.SGD(w), 'b': lambda w: Adam(w), 'c': torch.optim.RMSprop}",
]


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_list_of_optimizers_is_found(source):
    assert list(lists_of_optimizers(f"import lrcore\n{source}")) == [2]


def test_no_test_file_has_a_list_of_optimizers_of_its_own():
    """What tests go through comes from the declarations (support.cases), so that a new optimizer is in all of them."""
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py") if path != Path(__file__)}
    found = [
        f"{path.relative_to(TESTS)}:{line}" for path, text in sources.items() for line in lists_of_optimizers(text)
    ]
    assert not found
