"""The shapes of real models' tensors, in the order of ``model.parameters()``."""

from __future__ import annotations

from itertools import pairwise

Shapes = list[tuple[int, ...]]


def mlp(*widths: int) -> Shapes:
    """Weights and biases of a perceptron."""
    return [shape for fan_in, fan_out in pairwise(widths) for shape in ((fan_out, fan_in), (fan_out,))]


def actor_critic(observation: int = 17, action: int = 6, hidden: int = 256) -> Shapes:
    """TD3 on HalfCheetah: an actor, and a critic of observation and action."""
    return mlp(observation, hidden, hidden, action) + mlp(observation + action, hidden, hidden, 1)


def resnet50(classes: int = 1000) -> Shapes:
    """He et al., 2015: four stages of bottleneck blocks; each convolution has a batch norm of two vectors."""

    def convolution(out: int, into: int, size: int) -> Shapes:
        return [(out, into, size, size), (out,), (out,)]

    shapes = convolution(64, 3, 7)
    into = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += convolution(width, into, 1) + convolution(width, width, 3) + convolution(4 * width, width, 1)
            if block == 0:
                shapes += convolution(4 * width, into, 1)
            into = 4 * width
    return [*shapes, (classes, into), (classes,)]


def gpt2(vocabulary: int = 50257, context: int = 1024, width: int = 768, layers: int = 12) -> Shapes:
    """Radford et al., 2019: the small model; the output layer shares the embedding's weights."""
    norm: Shapes = [(width,), (width,)]
    attention: Shapes = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    perceptron: Shapes = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    layer = norm + attention + norm + perceptron
    return [(vocabulary, width), (context, width), *layer * layers, *norm]


MODELS: dict[str, Shapes] = {
    "MLP": mlp(64, 64, 64, 10),
    "actor-critic": actor_critic(),
    "ResNet-50": resnet50(),
    "GPT-2 small": gpt2(),
}
