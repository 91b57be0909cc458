"""The engine matches the NumPy reference bit for bit, at every SIMD level, thread count, length and alignment."""

import numpy as np
import pytest

import lrcore
from support import reference
from support.cases import CASES, DTYPES, LENGTHS, RULES, THREADS, gradients, misaligned, same, special

STEPS = 4


def expected(case, weights, all_grads):
    """Weights and states after some steps of the reference, with the hyperparameters reported by the optimizer."""
    group = case.make([np.zeros(1)]).param_groups[0]
    names, state_names = RULES[case.rule]
    weights = list(weights)
    states = [reference.initial_state(case.rule, len(state_names), w, group.at(0)) for w in weights]
    for step, grads in enumerate(all_grads):
        numbers = group.at(step)
        hyperparameters = {name: numbers[name] for name in names}
        decay = case.optimizer._declaration.decay
        common = {"lr": numbers["lr"], "weight_decay": numbers["weight_decay"], "maximize": group["maximize"]}
        for i, g in enumerate(grads):
            weights[i], states[i] = reference.move(
                case.rule, weights[i], g, states[i], step + 1, hyperparameters, decay=decay, **common
            )
    return weights, [dict(zip(state_names, state, strict=True)) for state in states]


def assert_same(opt, weights, states, expected_weights, label):
    for i, (w, want) in enumerate(zip(weights, expected_weights, strict=True)):
        assert same(w, want), f"{label}: weight {i} of length {w.size}"
        for name, array in states[i].items():
            assert same(opt.state[str(i)][name], array), f"{label}: {name} {i} of length {w.size}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_are_bitwise_equal_to_the_reference(case, dtype):
    """All lengths and all pairs of special values, at each SIMD level, thread count and alignment."""
    rng = np.random.default_rng(1)
    edge = special(dtype)
    crossed = [grid.ravel() for grid in np.meshgrid(edge, edge)]
    start = [rng.standard_normal(length).astype(dtype) for length in LENGTHS] + [crossed[0]]
    all_grads = [[gradients(rng, length, dtype, step) for length in LENGTHS] + [crossed[1]] for step in range(STEPS)]
    want, want_states = expected(case, start, all_grads)
    for level in lrcore.simd_levels():
        for threads in THREADS:
            lrcore.set_simd_level(level)
            lrcore.set_num_threads(threads)
            offset = (3 * threads) % dtype.itemsize
            weights = [misaligned(w, offset) for w in start]
            opt = case.make(weights)
            for grads in all_grads:
                opt.step([misaligned(g, (offset + 1) % dtype.itemsize) for g in grads])
            assert_same(opt, weights, want_states, want, f"{level}, {threads} threads, offset {offset}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_subnormal_state_is_flushed(case, dtype):
    tiny = np.finfo(dtype).tiny
    grads = [np.full(100, tiny * 0.25, dtype)] * STEPS
    weights = [np.full(100, tiny, dtype)]
    opt = case.make(weights)
    for g in grads:
        opt.step([g])
    for array in opt.state.get("0", {}).values():
        assert not np.any((array != 0) & (np.abs(array) < tiny))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_number_has_its_own_bias_correction(case):
    """Including large step counts, set through a state dict."""
    count = 2**24 + 5
    rng = np.random.default_rng(2)
    w, g = rng.standard_normal((2, 50))
    opt = case.make([w.copy()])
    opt.step([g])
    saved = opt.state_dict()
    saved["state"]["0"]["step"] = count
    opt.load_state_dict(saved)
    moved = opt.params[0]
    state = [saved["state"]["0"][name] for name in RULES[case.rule][1]]
    group = opt.param_groups[0]
    numbers = group.at(1)
    # beta ** count is 0 for every beta of the table except one, whose exact power would take too long.
    if any(0.9999 < numbers.get(name, 0) < 1 for name in ("beta1", "beta2")):
        pytest.skip("the exact power is too long")
    hyperparameters = {name: numbers[name] for name in RULES[case.rule][0]}
    before = moved.copy()
    opt.step([g])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrcore.optim.reference.power", lambda base, exponent: float(base**exponent))
        want, want_state = reference.move(
            case.rule, before, g, state, count + 1, hyperparameters, decay=case.optimizer._declaration.decay,
            lr=numbers["lr"], weight_decay=numbers["weight_decay"], maximize=group["maximize"],
        )  # fmt: skip
    assert same(moved, want)
    for name, array in zip(RULES[case.rule][1], want_state, strict=True):
        assert same(opt.state["0"][name], array)
