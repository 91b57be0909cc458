"""Every registered rule has all its pieces, and every public name says what it is."""

import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.optim.hyperparameter import Flag, Number
from support import reference
from support.cases import CASES

PAGES = Path(__file__).parents[1] / "docs" / "reference"
RULES = {name: (hyperparameters, state) for name, hyperparameters, state in lrcore._lrcore.rules()}
PUBLIC = [getattr(lrcore, name) for name in lrcore.__all__]
OPTIMIZERS = [
    value
    for value in PUBLIC
    if inspect.isclass(value) and issubclass(value, lrcore.Optimizer) and value is not lrcore.Optimizer
]
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


CHOICES = {
    optimizer: {optimizer._rule(group) for group in groups_at_every_corner(optimizer)} for optimizer in OPTIMIZERS
}


def line_of(name, page):
    """The row of a table that begins with a name, or nothing."""
    rows = (PAGES / page).read_text(encoding="utf-8").splitlines()
    return next((row for row in rows if re.match(rf"\| *`{name}\b", row)), "")


def forgotten(rule):
    """What a rule still lacks."""
    optimizers = [optimizer for optimizer, rules in CHOICES.items() if rule in rules]
    if not hasattr(reference, rule):
        yield f"tests/support/reference.py has no function {rule}"
    if not any(case.rule == rule for case in CASES):
        yield f"tests/support/cases.py has no case with the rule {rule!r}"
    if not optimizers:
        yield f"no optimizer in lrcore.__all__ chooses {rule!r} at any of its corners"
    for optimizer in optimizers:
        name = optimizer.__name__
        line = line_of(name, "optimizers.md")
        if not line:
            yield f"docs/reference/optimizers.md has no line that begins with {name}"
        for state in RULES[rule][1]:
            if line and f"`{state}`" not in line:
                yield f"docs/reference/optimizers.md does not name the state {state} of {name}"


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_forgotten_nothing(rule):
    missing = list(forgotten(rule))
    assert not missing, f"{rule}: " + "; ".join(missing)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_an_optimizer_chooses_registered_rules_and_has_their_hyperparameters(optimizer):
    for group in groups_at_every_corner(optimizer):
        rule = optimizer._rule(group)
        assert rule in RULES, f"src/rules/mod.rs has no {rule!r}"
        lacking = set(RULES[rule][0]) - group.at(0).keys()
        assert not lacking, f"{optimizer.__name__} has no value for {lacking} of the rule {rule!r}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_an_optimizer_has_a_case_for_each_rule_that_it_chooses(optimizer):
    tried = {case.rule for case in CASES if case.optimizer is optimizer}
    assert CHOICES[optimizer] == tried, f"tests/support/cases.py and {optimizer.__name__} disagree"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_names_the_rule_that_its_optimizer_chooses(case):
    assert case.optimizer._rule(case.make([np.zeros(1)]).param_groups[0]) == case.rule


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_an_optimizers_docstring_has_every_section(optimizer):
    found = re.findall(r"^(\w+):$", inspect.getdoc(optimizer), re.MULTILINE)
    assert [section for section in SECTIONS if section not in found] == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
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
