"""Loading goes by the names of parameters where both sides have them."""

import copy

import pytest

import lrcore
from lrcore import schedules
from support.optimizer_pairs import copied, drop_ins, parameter, torch

SHAPE = (3,)
NAMES = ["embed.weight", "layer.weight", "layer.bias", "head.weight"]


def weights():
    return {name: parameter(*SHAPE, seed=number) for number, name in enumerate(NAMES)}


def grouped(order, params):
    """Return groups of these names, the first two and the others, or all in one."""
    if isinstance(order[0], list):
        return [
            {"params": [(name, params[name]) for name in names], "lr": 0.1 if NAMES[0] in names else 0.01}
            for names in order
        ]
    return [(name, params[name]) for name in order]


def make(order, params, library=drop_ins, **options):
    return library.AdamW(grouped(order, params), lr=0.1, weight_decay=0.5, **options)


def step(opt, params, number):
    for seed, name in enumerate(NAMES):
        params[name].grad = parameter(*SHAPE, seed=100 * number + seed).detach()
    opt.step()


def assert_goes_on(opt, params, twin, others):
    for number in range(5, 8):
        step(opt, params, number)
        step(twin, others, number)
    for name in NAMES:
        torch.testing.assert_close(others[name], params[name], rtol=0, atol=0)
        state, expected = twin.state[others[name]], opt.state[params[name]]
        torch.testing.assert_close(state, expected, rtol=0, atol=0, check_dtype=False)


ORDERS = {
    "reversed": (NAMES, NAMES[::-1]),
    "turned": (NAMES, NAMES[1:] + NAMES[:1]),
    "in groups": ([NAMES[:2], NAMES[2:]], [NAMES[:2][::-1], NAMES[2:][::-1]]),
    "groups in another order": ([NAMES[:2], NAMES[2:]], [NAMES[2:], NAMES[:2]]),
    "groups of other sizes": ([NAMES[:1], NAMES[1:]], [NAMES[1:][::-1], NAMES[:1]]),
}


@pytest.mark.parametrize(("first", "second"), ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("from_torch", [False, True])
def test_state_and_groups_go_where_their_names_are(first, second, from_torch):
    options = {"no_decay": ["*bias", "embed*"], "average": lrcore.EMA(0.5)}
    params = weights()
    opt = make(first, params, **options)
    for number in range(3):
        step(opt, params, number)
    others = {name: copied(param) for name, param in params.items()}
    if from_torch:
        twin = drop_ins.from_torch(make(second, others, torch.optim), **options)
    else:
        twin = make(second, others, **options)
    names = [list(group["param_names"]) for group in twin.param_groups]
    saved = copy.deepcopy(opt.state_dict())
    before = copy.deepcopy(saved)
    twin.load_state_dict(saved)
    assert [group["param_names"] for group in twin.param_groups] == names
    assert saved["param_groups"] == before["param_groups"]
    assert twin.average.keys() == opt.average.keys()
    for name, average in opt.average.items():
        assert torch.equal(twin.average[name], average)
    assert_goes_on(opt, params, twin, others)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapped_first", [False, True])
def test_wrappers_of_the_model_do_not_matter(prefix, wrapped_first):
    options = {"no_decay": ["*bias"]}
    params = weights()
    wrapped, plain = (prefix, "") if wrapped_first else ("", prefix)
    opt = drop_ins.AdamW([(wrapped + name, params[name]) for name in NAMES], **options)
    for number in range(3):
        step(opt, params, number)
    others = {name: copied(param) for name, param in params.items()}
    twin = drop_ins.AdamW([(plain + name, others[name]) for name in reversed(NAMES)], **options)
    twin.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert twin.param_groups[0]["param_names"] == [plain + name for name in reversed(NAMES)]
    assert_goes_on(opt, params, twin, others)


def renamed(names):
    return lambda saved: saved["param_groups"][0].update(param_names=names)


def moved(saved):
    first, second = saved["param_groups"]
    for key in ("params", "param_names"):
        first[key][0], second[key][0] = second[key][0], first[key][0]


@pytest.mark.parametrize(
    ("order", "change", "message"),
    [
        (NAMES, renamed(["a", *NAMES[1:]]), r"missing \['embed.weight'\], unexpected \['a'\]"),
        (
            NAMES,
            renamed(["a", "a", *NAMES[:2]]),
            r"missing \['layer.bias', 'head.weight'\], unexpected \['a', 'a'\]|'a'",
        ),
        ([NAMES[:2], NAMES[2:]], moved, r"param_groups\[0\], \['embed.weight', 'layer.weight'\], are in other groups"),
    ],
    ids=["another name", "names twice", "another group"],
)
def test_other_names_are_refused_and_nothing_is_loaded(order, change, message):
    params, others = weights(), weights()
    opt, twin = make(order, params), make(order, others)
    step(opt, params, 0)
    saved = copy.deepcopy(opt.state_dict())
    change(saved)
    with pytest.raises(ValueError, match=message):
        twin.load_state_dict(saved)
    step(twin, others, 0)
    assert_goes_on(opt, params, twin, others)


def test_names_on_one_side_only_go_by_position():
    params = weights()
    opt = make(NAMES, params)
    step(opt, params, 0)
    others = {name: copied(param) for name, param in params.items()}
    twin = drop_ins.AdamW(others.values(), lr=0.1, weight_decay=0.5)
    twin.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_goes_on(opt, params, twin, others)


def test_a_state_dict_that_a_hook_gives_is_matched_too():
    params = weights()
    opt = make(NAMES, params)
    step(opt, params, 0)
    others = {name: copied(param) for name, param in params.items()}
    twin = make(NAMES[::-1], others)
    twin.register_load_state_dict_pre_hook(lambda _, saved: saved["inner"])
    twin.load_state_dict({"inner": copy.deepcopy(opt.state_dict())})
    assert_goes_on(opt, params, twin, others)


def test_schedules_stay_with_groups_that_are_copied_in_another_order():
    params = weights()
    groups = grouped([NAMES[:2], NAMES[2:]], params)
    groups[0]["lr"] = schedules.Constant(0.25)
    opt = drop_ins.SGD(groups)
    step(opt, params, 0)
    opt.param_groups.reverse()
    twin = copy.deepcopy(opt)
    assert [sorted(one) for one in twin.take_schedules()] == [[], ["lr"]]


@pytest.mark.parametrize(
    "names",
    [[["w"], ["w"]], [["w", "1.w"], ["w"]], [["w", "w", "1.w"], ["w"]], [["1.1.w", "1.w", "w"], ["w", "1.w"]]],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:no_decay")  # where no name is matched, none that lrcore makes up is, either
@pytest.mark.parametrize(("pattern", "kept"), [("w", {"w", "1.w", "1.1.w"}), ("1.w", {"1.w", "1.1.w"})])
def test_no_decay_acts_on_every_parameter_of_a_name(names, pattern, kept):
    groups = [{"params": [(name, torch.nn.Parameter(torch.ones(1))) for name in group]} for group in names]
    params = [(name, param) for group in groups for name, param in group["params"]]
    opt = drop_ins.SGD(groups, lr=0.5, weight_decay=1.0, no_decay=[pattern], stats=True)
    for _, param in params:
        param.grad = torch.zeros(1)
    opt.step()
    assert [param.item() for _, param in params] == [1.0 if name in kept else 0.5 for name, _ in params]
    assert len(opt.info.stats) == len(params)
