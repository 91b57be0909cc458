"""PyTorch's optimizers on the CPU, with lrcore's step."""

from lrcore.torch.classes import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]
