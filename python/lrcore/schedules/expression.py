"""Schedules from Python expressions such as ``Cosine(0.1, steps=100).warmup(10)``. Nothing in the text is executed.

The text is parsed, and only the syntax tree's nodes that are named here are evaluated: the classes of schedules and a
few functions, the methods that combine schedules, and numbers, strings, lists, tuples and dicts as arguments.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

from lrcore import schedules
from lrcore._messages import brief
from lrcore.schedules.schedule import Schedule, is_number

if TYPE_CHECKING:
    from collections.abc import Callable

# A function is code, so there is no Lambda.
CLASSES = tuple(name for name in schedules.CLASSES if name != "Lambda")
FUNCTIONS = ("concat", "get", "per_epoch", "steps_in", "untuned")
METHODS = (
    *("at_least", "at_most", "branch", "cooldown", "every", "momentum"),
    *("repeat", "scale", "shift", "stretch", "then", "warmup"),
)

# Within these limits any text is evaluated quickly.
_LONGEST = 50_000
_DEEPEST = 60
_MOST_WARMUPS = 8
_LARGEST = 2**63
_LARGEST_POWER = 64
_LARGEST_COMPAT = 10**6

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Pow: ("**", operator.pow),
}
_REFUSED: dict[type[ast.AST], str] = {
    ast.Lambda: "a lambda",
    ast.JoinedStr: "an f-string",
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "a comprehension"),
    ast.NamedExpr: "an assignment",
    ast.Subscript: "an index",
    ast.Compare: "a comparison",
    ast.BoolOp: "and, or",
    ast.IfExp: "a condition",
    ast.Starred: "an argument with a star",
    ast.Set: "a set",
    ast.Await: "await",
}


def evaluate(text: str) -> Schedule:
    """Return the schedule of an expression, or of JSON.

    Args:
        text: JSON if it begins with ``{``; else classes of :mod:`lrcore.schedules` with arguments, their methods,
            sums, differences and products. Numbers can be computed (``2 * 500``).

    Raises:
        TypeError: If an argument of a schedule has the wrong type, is unknown or missing.
        ValueError: If the text contains anything else, is too long or too deep, or an argument is out of range.

    Examples:
        >>> from lrcore.schedules.expression import evaluate
        >>> evaluate("Cosine(0.1, steps=10 * 100).warmup(50) * 0.5")
        Cosine(start=0.1, steps=1000).warmup(50) * 0.5
        >>> evaluate("__import__('os')")
        Traceback (most recent call last):
        ValueError: '__import__' is not allowed; there are ...
    """
    if len(text) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters, got {len(text)}")
    # Each warm-up compresses the schedule again.
    if len(re.findall(r"\bwarmup\b *\(|\bWithWarmup\b", text)) > _MOST_WARMUPS:
        raise ValueError(f"an expression has at most {_MOST_WARMUPS} warm-ups")
    try:
        if text.lstrip().startswith("{"):
            return Schedule.from_json(text)
        value = _value(ast.parse(text.strip(), mode="eval").body, 0)
    except SyntaxError as error:
        raise ValueError(f"this is not an expression: {error.msg}") from None
    except (MemoryError, RecursionError):
        raise ValueError("this is nested too deeply") from None
    if not isinstance(value, Schedule):
        raise ValueError(f"a schedule is needed, such as Cosine(0.1, steps=100), got {brief(value)}")
    return value


def _value(node: ast.expr, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("this is nested too deeply")
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return _small(value)
        case ast.List(elts=parts):
            return [_value(part, depth + 1) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part, depth + 1) for part in parts)
        case ast.Dict(keys=keys, values=parts):
            return {_key(key, depth): _value(part, depth + 1) for key, part in zip(keys, parts, strict=True)}
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            return _signed(sign, _value(operand, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _joined(_value(left, depth + 1), *_OPERATORS[type(op)], _value(right, depth + 1))
        case ast.Call():
            return _called(node, depth)
    raise ValueError(_hindrance(node))


def _key(key: ast.expr | None, depth: int) -> Any:
    made = None if key is None else _value(key, depth + 1)
    if not is_number(made) and not isinstance(made, str):
        raise ValueError("the keys of a dict must be numbers or strings")
    return made


def _small(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ValueError("a whole number must be less than 2**63")
    return value


def _signed(sign: ast.unaryop, value: Any) -> Any:
    if not is_number(value) and not isinstance(value, Schedule):
        raise ValueError("a sign is allowed only before a number or a schedule")
    return -value if isinstance(sign, ast.USub) else value


def _joined(left: Any, sign: str, function: Callable[[Any, Any], Any], right: Any) -> Any:
    """Return the result of an operator for two numbers, or for a schedule and a schedule or number."""
    if not all(is_number(part) or isinstance(part, Schedule) for part in (left, right)):
        raise ValueError(f"{sign} is allowed only between schedules and numbers")
    if isinstance(left, Schedule) or isinstance(right, Schedule):
        if sign not in ("+", "-", "*") and not (sign == "/" and is_number(right)):
            raise ValueError(f"{sign} is allowed only between numbers; schedules have *, + and -, and / by a number")
        return function(left, right)
    if sign == "**" and abs(right) > _LARGEST_POWER:
        raise ValueError(f"a power must be at most {_LARGEST_POWER}, got {right}")
    try:
        number = function(left, right)
    except ArithmeticError as error:
        raise ValueError(f"{left!r} {sign} {right!r}: {error}") from None
    if not is_number(number):
        raise ValueError(f"{left!r} {sign} {right!r} is no real number")
    return _small(number)


def _called(node: ast.Call, depth: int) -> Any:
    function = _function(node.func, depth)
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("an argument with two stars is not allowed")
    positional = [_value(argument, depth + 1) for argument in node.args]
    named = {str(keyword.arg): _value(keyword.value, depth + 1) for keyword in node.keywords}
    # Some schedules of other libraries become a table with every step.
    largest = max((abs(value) for value in (*positional, *named.values()) if is_number(value)), default=0)
    if function is schedules.get and largest > _LARGEST_COMPAT:
        raise ValueError(f"get: a number must be at most {_LARGEST_COMPAT} here, got {largest}")
    return function(*positional, **named)


def _function(node: ast.expr, depth: int) -> Callable[..., Any]:
    """Return the called function: a class or function of `schedules`, or a method of the expression before it."""
    match node:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="schedules"), attr=name):
            if name not in CLASSES and name not in FUNCTIONS:
                raise ValueError(_hindrance(ast.Name(name)))
            found = getattr(schedules, name)
        case ast.Attribute(value=ast.Name(id="Warmup"), attr="untuned"):
            found = schedules.Warmup.untuned
        case ast.Attribute(attr=name) if name not in METHODS:
            raise ValueError(_hindrance(node))
        case ast.Attribute(value=ast.Call() | ast.BinOp() | ast.UnaryOp() as before, attr=name):
            owner = _value(before, depth + 1)
            if not isinstance(owner, Schedule) or not hasattr(owner, name):
                raise ValueError(f"{brief(owner)} has no .{name}()")
            found = getattr(owner, name)
        case ast.Attribute(value=before, attr=name):
            raise ValueError(f".{name}() is allowed only after a schedule, not after {ast.unparse(before)}")
        case _:
            raise ValueError(f"{ast.unparse(node)} can't be called")
    made: Callable[..., Any] = found
    return made


def _hindrance(node: ast.expr) -> str:
    """Return why a part of an expression is not allowed."""
    match node:
        case ast.Name(id="Lambda"):
            return "Lambda is not allowed: it takes a function, and nothing here is executed"
        case ast.Name(id=name) if name in CLASSES or name in FUNCTIONS:
            return f"{name} must be called, as {name}(…)"
        case ast.Name(id=name):
            return f"{name!r} is not allowed; there are {', '.join([*CLASSES, *FUNCTIONS])}"
        case ast.Attribute(attr=name) if name in METHODS:
            return f".{name} must be called, as .{name}(…)"
        case ast.Attribute(attr=name):
            return f"'.{name}' is not allowed; there are {', '.join(METHODS)}"
    return f"{_REFUSED.get(type(node), ast.unparse(node))} is not allowed"
