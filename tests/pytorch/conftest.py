"""PyTorch computes on one thread: with several, each test process would wait for the threads of the others."""

import importlib.util

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)
