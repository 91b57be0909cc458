"""Draws the gallery of schedules, a picture of each class and a sheet of all: `python docs/gallery.py`.

The pictures and their page in docs/gallery are the same bytes for the same version of matplotlib.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from PIL import Image

from lrcore import NoiseScale, schedules
from lrcore.schedules.expression import evaluate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = Path(__file__).with_name("gallery")
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd")
FORMULA = "#555555"


@dataclass(frozen=True)
class Picture:
    """The name of a class or function, its formula, and the schedules that are drawn."""

    name: str
    formula: str
    expressions: tuple[str, ...]
    steps: int = 1000


@dataclass(frozen=True)
class Section:
    """A group of pictures with a title."""

    title: str
    pictures: tuple[Picture, ...]


def picture(name: str, formula: str, *expressions: str, steps: int = 1000) -> Picture:
    """Return a picture."""
    return Picture(name, formula, expressions, steps)


BOUNDED = Section(
    "Bounded schedules",
    (
        picture(
            "Linear",
            "start + (end − start) · t / steps",
            "Linear(1, 0, 1000)", "Linear(1, 0.2, 600)", "Linear(0.1, 0.8, 400)", steps=1100,
        ),
        picture(
            "Cosine",
            "end + (start − end) · ((1 + cos(π tᵏ / stepsᵏ)) / 2)^power",
            "Cosine(1, 1000)", "Cosine(1, 1000, end=0.1)", "Cosine(1, 1000, power=3)", "Cosine(1, 1000, k=2)",
            steps=1100,
        ),
        picture(
            "Polynomial",
            "end + (start − end) · (1 − t / steps)^power",
            "Polynomial(1, 1000, power=0.5)", "Polynomial(1, 1000, power=2)", "Polynomial(1, 1000, 0.1, power=4)",
            steps=1100,
        ),
        picture(
            "Sqrt", "end + (start − end) · (1 − √(t / steps))", "Sqrt(1, 1000)", "Sqrt(1, 1000, end=0.2)", steps=1100
        ),
        picture(
            "Tanh",
            "end + (start − end) · (1 − tanh(lower · (1 − p) + upper · p)) / 2,  p = t / steps",
            "Tanh(1, 1000)", "Tanh(1, 1000, lower=-4, upper=4)", "Tanh(1, 1000, lower=-20, upper=5)", steps=1100,
        ),
        picture(
            "REX",
            "end + (start − end) · (1 − p) / (1 − p/2),  p = t / steps",
            "REX(1, 1000)", "REX(1, 1000, end=0.2)", "Linear(1, 0, 1000)", steps=1100,
        ),
        picture(
            "LogLinear",
            "start · (end / start)^(t / steps)",
            "LogLinear(1, 0.1, 1000)", "LogLinear(1, 0.001, 1000)", "LogLinear(0.001, 1, 1000)", steps=1100,
        ),
    ),
)  # fmt: skip
UNBOUNDED = Section(
    "Unbounded schedules",
    (
        picture("Constant", "value", "Constant(0.3)", "Constant(0.1)"),
        picture(
            "Exponential",
            "start · gamma^(t / steps)",
            "Exponential(1, gamma=0.999)", "Exponential(1, gamma=0.995)", "Exponential(1, gamma=0.5, steps=200)",
        ),
        picture(
            "InverseTime",
            "start / (1 + gamma · t / steps)",
            "InverseTime(1, gamma=1, steps=100)", "InverseTime(1, gamma=1, steps=500)",
        ),
        picture(
            "InverseSqrt",
            "start · √timescale / √(t + timescale)",
            "InverseSqrt(1, timescale=10)", "InverseSqrt(1, timescale=100)",
            "InverseSqrt(0.8, timescale=100).warmup(100)",
        ),
        picture(
            "Noam",
            "factor · d_model^−½ · min((t + 1)^−½, (t + 1) · warmup^−1.5)",
            "Noam(512, 4000)", "Noam(512, 8000)", "Noam(1024, 4000)", steps=20_000,
        ),
        picture(
            "CosineAnnealing",
            "low + (high − low) · (1 + cos(2π t / period)) / 2",
            "CosineAnnealing(1, period=500)", "CosineAnnealing(0.6, period=333.3, low=0.2)",
        ),
    ),
)  # fmt: skip
CYCLES = Section(
    "Cyclic schedules",
    (
        picture(
            "CosineRestarts",
            "in each cycle end + (peak − end) · (1 + cos(π s / T)) / 2",
            "CosineRestarts(1, 250)", "CosineRestarts(1, 120, factor=2, decay=0.7)",
        ),
        picture(
            "Cyclic",
            "low + (high − low) · x · scale, with x from 0 to 1 and back",
            "Cyclic(0.1, 1, up=100)", "Cyclic(0.1, 1, up=100, mode='triangular2')",
            "Cyclic(0.1, 1, up=50, down=200, mode='exp_range', gamma=0.998)",
        ),
        picture(
            "OneCycle",
            "from peak / div_factor up to peak, and down to much less",
            "OneCycle(1, 1000)", "OneCycle(1, 1000, shape='linear')",
            "OneCycle(1, 1000, pct_start=0.4, three_phase=True)", steps=1100,
        ),
        picture(
            "momentum",
            "the momentum of a OneCycle: high where the learning rate is low",
            "OneCycle(1, 1000).momentum(0.85, 0.95)", "OneCycle(1, 1000, shape='linear').momentum(0.85, 0.95)",
            steps=1100,
        ),
    ),
)  # fmt: skip
PIECEWISE = Section(
    "Piecewise schedules",
    (
        picture(
            "Step",
            "start · gamma^⌊t / step_size⌋",
            "Step(1, step_size=300, gamma=0.3)", "Step(1, step_size=100, gamma=0.8)",
        ),
        picture(
            "MultiStep",
            "start · gamma^(number of milestones ≤ t)",
            "MultiStep(1, [500, 750])", "MultiStep(1, [200, 400, 800], gamma=0.5)",
        ),
        picture(
            "Piecewise",
            "interpolation between points",
            "Piecewise([(0, 0), (200, 1), (600, 0.4), (1000, 0.4)])",
            "Piecewise([(0, 0), (200, 0.9), (600, 0.3), (1000, 0.5)], 'cosine')",
            "Piecewise([(0, 0.1), (200, 0.7), (600, 0.2)], 'constant')", steps=1100,
        ),
        picture(
            "Table",
            "table[min(t, len(table) − 1)]",
            "Table([0.2, 0.6, 1, 0.8, 0.6, 0.4, 0.3, 0.2])", "Table([1, 0.1]).stretch(2).repeat()", steps=12,
        ),
        picture("Lambda", "function(t)", "Lambda(lambda t: 1 / (1 + t // 100))"),
        picture(
            "Chebyshev",
            "1 / ((L + l) / 2 + (L − l) / 2 · cos(π (j − ½) / steps))",
            "Chebyshev(0.1, 1, 32)", "Chebyshev(0.1, 1, 32, 'rising')", "Chebyshev(0.1, 1, 32, 'falling')", steps=35,
        ),
    ),
)  # fmt: skip
SEQUENCES = Section(
    "Sequences, warm-up and cool-down",
    (
        picture(
            "WithWarmup",
            "start + (first − start) · rise((t + 1) / steps), then the schedule",
            "Cosine(1, 1000).warmup(200)", "Cosine(0.8, 1000).warmup(200, start=0.2)",
            "Cosine(0.6, 1000).warmup(200, shape='cosine')", "Cosine(0.4, 1000).warmup(200, shape='exponential')",
            steps=1100,
        ),
        picture(
            "Warmup",
            "a factor: start + (1 − start) · rise((t + 1) / steps)",
            "Warmup(400)", "Warmup(400, start=0.3, shape='cosine')", "Warmup(200, shape='exponential')",
            "Warmup(400) * Exponential(1, 0.998)",
        ),
        picture(
            "WithCooldown",
            "the schedule, then end + (value − end) · decay",
            "Constant(1).cooldown(300, at=700)", "Exponential(0.8, 0.9995).cooldown(300, at=700, shape='cosine')",
            "Linear(0.6, 0.4, 1000).cooldown(0.3, shape='sqrt')", steps=1100,
        ),
        picture(
            "WSD",
            "warm-up, stable, decay",
            "WSD(1, 1000, 100, 200)", "WSD(0.8, 1000, 100, 400, shape='sqrt')",
            "WSD(0.6, 1000, 100, 200, shape='cosine').branch(500, 200)", steps=1100,
        ),
        picture(
            "Sequential",
            "first(t) for t < at, then second(t − at)",
            "Linear(0, 1, 200).then(Cosine(1, 500)).then(0.1)", "Constant(0.6).then(Sqrt(0.6, 400), at=600)",
        ),
        picture(
            "concat",
            "each part for its length",
            "concat([Linear(0, 1, 100), Linear(1, 0.4, 300), Cosine(0.4, 600)])", steps=1100,
        ),
    ),
)  # fmt: skip
ARITHMETIC = Section(
    "Arithmetic",
    (
        picture(
            "Scaled", "schedule(t) · factor", "Cosine(1, 1000)", "Cosine(1, 1000) * 0.5", "Cosine(1, 1000).scale(0.2)"
        ),
        picture(
            "Product",
            "a(t) · b(t)",
            "Cosine(1, 1000) * CosineRestarts(1, 200, end=0.5)", "Linear(1, 0, 1000) * Step(1, 250, gamma=0.5)",
        ),
        picture("Sum", "a(t) + b(t)", "Cosine(0.8, 1000) + 0.2", "Linear(0.5, 0, 1000) + Cyclic(0, 0.2, up=50)"),
        picture(
            "Difference",
            "a(t) − b(t)",
            "1 - Cosine(0.8, 1000)", "(Cosine(1, 1000) - 0.2).at_least(0)",
        ),
        picture(
            "AtLeast",
            "max(a(t), b(t))",
            "Cosine(1, 1000).at_least(0.3)", "Cosine(0.6, 1000).at_least(Linear(0, 0.4, 1000))",
        ),
        picture(
            "AtMost",
            "min(a(t), b(t))",
            "Cosine(1, 1000).at_most(0.8)", "Exponential(1, 0.998).at_most(Linear(0, 2, 1000))",
        ),
        picture(
            "ReduceOnPlateau",
            "times factor when the metric stops improving; here with a constant loss",
            "Cosine(1, 1000) * ReduceOnPlateau(0.5, patience=150)", "ReduceOnPlateau(0.3, patience=300)",
        ),
        picture(
            "AdaScale",
            "(σ² + μ²) / (σ²/S + μ²); here of S = 8 micro-batches, with a shrinking gradient",
            "AdaScale()", "Cosine(4, 1000) * AdaScale()",
        ),
    ),
)  # fmt: skip
TIME = Section(
    "Time",
    (
        picture(
            "Shifted",
            "schedule(max(t − steps, 0))",
            "Cosine(1, 600)", "Cosine(1, 600).shift(300)", "Cosine(1, 600).shift(-300)",
        ),
        picture("Stretched", "schedule(t / factor)", "Cosine(1, 400)", "Cosine(1, 400).stretch(2.5)", steps=1100),
        picture(
            "Repeated",
            "schedule(t mod period)",
            "Linear(1, 0, 200).repeat()", "Cosine(0.6, 300).repeat(2)", "OneCycle(0.8, 400).repeat(period=500)",
        ),
        picture(
            "Staircase", "schedule(t − t mod steps)", "Cosine(1, 1000).every(100)", "Linear(0.6, 0, 1000).every(250)"
        ),
        picture(
            "per_epoch",
            "schedule(⌊t / steps_per_epoch⌋)",
            "per_epoch(Cosine(1, 10), 100)", "per_epoch(Step(0.6, 3, gamma=0.5), 100)",
        ),
    ),
)  # fmt: skip
SECTIONS = (BOUNDED, UNBOUNDED, CYCLES, PIECEWISE, SEQUENCES, ARITHMETIC, TIME)
PICTURES = [picture for section in SECTIONS for picture in section.pictures]


def stalled(rule: schedules.ReduceOnPlateau, steps: int) -> schedules.Schedule:
    """Return the factors of a plateau with one report per step of a constant loss."""
    tracker = rule.tracker()
    factors = []
    for _ in range(steps):
        factors.append(tracker.factor)
        tracker.report(1.0)
    return schedules.Table(tuple(factors))


def sinking(steps: int) -> schedules.Schedule:
    """Return the gain of 8 micro-batches whose gradient shrinks from ten times the noise to a hundredth of it."""
    gains = []
    for step in range(steps):
        noise, signal = NoiseScale(1, smoothing=0.0), 10.0 * 1e-3 ** (step / steps)
        noise.update(signal + 1.0, 1, signal + 1.0 / 8.0, 8)
        gains.append(noise.gain(8))
    return schedules.Table(tuple(gains))


def made(expression: str, steps: int) -> schedules.Schedule:
    """Return the schedule of an expression; those with functions or metrics are made here."""
    match expression:
        case "Lambda(lambda t: 1 / (1 + t // 100))":
            return schedules.Lambda(lambda t: 1 / (1 + t // 100))
        case "Cosine(1, 1000) * ReduceOnPlateau(0.5, patience=150)":
            return schedules.Cosine(1, 1000) * stalled(schedules.ReduceOnPlateau(0.5, patience=150), steps)
        case "ReduceOnPlateau(0.3, patience=300)":
            return stalled(schedules.ReduceOnPlateau(0.3, patience=300), steps)
        case "AdaScale()":
            return sinking(steps)
        case "Cosine(4, 1000) * AdaScale()":
            return schedules.Cosine(4, 1000) * sinking(steps)
    return evaluate(expression)


def draw(picture: Picture, axes: Axes, linewidth: float) -> None:
    """Draw the curves of a picture, the first on top."""
    for i, expression in reversed(list(enumerate(picture.expressions))):
        schedule = made(expression, picture.steps)
        is_short = picture.steps <= 50
        axes.plot(
            schedule.values(picture.steps), color=COLOURS[i], linewidth=linewidth, label=expression,
            drawstyle="steps-post" if is_short else "default",
        )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if low < 0.6 * high:
        axes.set_ylim(0.0, 1.05 * high)


def draw_alone(picture: Picture) -> Figure:
    """Return one large figure with titles and a legend."""
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    draw(picture, axes, 1.8)
    axes.set(xlabel="step", ylabel="value")
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.set_title(picture.formula, fontsize=8.5, color=FORMULA)
    figure.suptitle(picture.name, fontsize=12, fontweight="bold")
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 45 else 2
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=columns, fontsize=7.5, frameon=False)
    return figure


def draw_sheet(pictures: list[Picture]) -> Figure:
    """Return small figures of all pictures, without numbers."""
    columns = 6
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(1.7 * columns, 1.25 * rows), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns).ravel()
    for panel in panels[len(pictures) :]:
        panel.set_axis_off()
    for panel, picture in zip(panels, pictures, strict=False):
        draw(picture, panel, 1.3)
        panel.set_title(picture.name, fontsize=8.5)
        panel.set(xticks=[], yticks=[])
    return figure


def save(figure: Figure, name: str) -> None:
    """Write a PNG with few colours, without a date or version."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(FOLDER / f"{name}.png", optimize=True)


def page() -> str:
    """Return the page with all pictures and their expressions."""
    lines = ["# Gallery of schedules", ""]
    lines += [
        "Drawn by `python docs/gallery.py`. The expressions are those of `python -m lrcore schedule`; in Python they"
    ]
    lines += ["are names of `lrcore.schedules`. All of them, drawn small:", ""]
    lines += ["![All schedules, drawn small](contact_sheet.png)"]
    for section in SECTIONS:
        lines += ["", f"## {section.title}"]
        for picture in section.pictures:
            lines += ["", f"### {picture.name}", "", f"![{picture.name}]({picture.name}.png)", ""]
            lines += ["```text", *picture.expressions, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw all pictures and write their page."""
    FOLDER.mkdir(exist_ok=True)
    for picture in PICTURES:
        save(draw_alone(picture), picture.name)
    save(draw_sheet(PICTURES), "contact_sheet")
    (FOLDER / "README.md").write_text(page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
