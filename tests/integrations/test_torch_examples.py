"""The examples for PyTorch and its frameworks run, and so do the recipes."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def blocks_of(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python fragment\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


RECIPES = blocks_of("docs/reference/torch_recipes.md")
PAGES = blocks_of("docs/reference/torch.md") + blocks_of("README.md")

# What the recipes leave to the reader. The model is one for transformers, too, which calls it by the keys of a batch.
READERS = """
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

torch.manual_seed(0)
inputs, targets = torch.randn(64, 8), torch.arange(64) % 4
loss_fn = torch.nn.functional.cross_entropy


class Model(torch.nn.Linear):
    def forward(self, x, labels=None):
        logits = super().forward(x)
        return logits if labels is None else {"loss": loss_fn(logits, labels), "logits": logits}


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        return {"x": inputs[i], "labels": targets[i]}


model = Model(8, 4)
loader = DataLoader(Rows() if TRANSFORMERS else TensorDataset(inputs, targets), 16)
"""


def need(*modules):
    for module in modules:
        pytest.importorskip(module)


def run(command, folder):
    """Run Python in an empty folder, and return what it prints; nothing in it may warn because of lrcore."""
    command = [sys.executable, "-W", "default", *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"lrcore/\S+\.py:\d+: \w*Warning|lr_scheduler\.step\(\)", done.stderr), done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def example(name, *arguments):
    return ROOT / "examples" / name, *arguments


def test_a_cnn_learns_the_same_with_lrcore_as_with_pytorch(tmp_path):
    need("torch", "sklearn", "tqdm")
    printed = run(example("torch_mnist_like.py", "--epochs", "2"), tmp_path)
    names = ("torch.optim", "torch.optim, fused", "lrcore", "lrcore with EMA")
    rows = {name: line.split("│")[1].split() for line in printed.splitlines() for name in names if f"{name} " in line}
    assert list(rows) == list(names), printed
    assert len({accuracy for accuracy, _ in rows.values()}) == 1, printed
    assert all(float(difference) < 1e-4 for _, difference in rows.values()), printed
    assert "find_lr: " in printed
    assert "of the average" in printed


def test_trainer_learns_the_same_and_a_resumed_run_ends_with_the_same_bits(tmp_path):
    need("torch", "transformers", "accelerate")
    printed = run(example("hf_trainer.py", "--steps", "20"), tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss (\S+), accuracy", printed)]
    assert len(losses) == 4, printed
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), printed
    assert losses[1] == losses[2], printed
    assert "the same bits: yes" in printed


def test_lightning_clips_the_same_and_a_resumed_run_ends_with_the_same_bits(tmp_path):
    need("torch", "pytorch_lightning", "sklearn", "tqdm")
    printed = run(example("lightning.py", "--epochs", "2"), tmp_path)
    assert len(set(re.findall(r"test accuracy (\S+)", printed))) == 1, printed
    assert float(re.search(r"weights differ by (\S+)", printed)[1]) < 1e-4, printed
    assert "the same bits: yes" in printed


def test_accelerate_loads_a_state_and_ends_with_the_same_bits(tmp_path):
    need("torch", "accelerate", "sklearn", "tqdm")
    printed = run(example("accelerate_loop.py", "--epochs", "2"), tmp_path)
    accuracies = re.findall(r"44 steps, (.*)", printed)
    assert len(accuracies) == 2, printed
    assert accuracies[0] == accuracies[1], printed
    assert "the same bits: yes" in printed


def test_no_example_takes_the_one_for_lightning_for_the_package(tmp_path):
    """Python looks into the folder of a script first, and there lightning.py lies."""
    names = ["accelerate_loop", "digits", "hf_trainer", "torch_mnist_like"]
    trees = [ast.parse((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")) for name in names]
    modules = {module for tree in trees for module in imported(tree)}
    need(*{module for module in modules if not (ROOT / "examples" / f"{module}.py").exists()})
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r}); import {', '.join(names)}"
    assert run(("-c", f"{code}; print('lightning' in sys.modules)"), tmp_path) == "False\n"


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def is_there(module):
    return importlib.util.find_spec(module) is not None


def test_the_recipes_and_the_pages_run(tmp_path):
    """Those whose packages are there, one after the other in one process: each of these takes seconds to import."""
    need("torch")
    lines = [
        "def recipe(name, code):",
        "    print(name)",
        "    exec(compile(code, name, 'exec'), {'__name__': '__main__'})",
    ]
    names = []
    for number, block in enumerate([*RECIPES, *PAGES]):
        modules = set(imported(ast.parse(block)))
        if all(map(is_there, modules)):
            names.append(f"recipe {number}")
            readers = READERS.replace("TRANSFORMERS", str("transformers" in modules)) if number < len(RECIPES) else ""
            lines.append(f"recipe({names[-1]!r}, {readers + block!r})")
    script = tmp_path.parent / "recipes.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    printed = run((script,), tmp_path)
    assert [line for line in printed.splitlines() if line.startswith("recipe ")] == names
