"""Schedules by other libraries' names have those libraries' values at every step."""

import inspect
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.schedules.compat import SOURCES
from support import schedule_peers as peers
from support.rows import each


def halves(step):
    return 0.5 ** (step // 7)


def shrinking(step):
    return 1.0 - 1.0 / (step + 2)


def square_root(x):
    return 1.0 / math.sqrt(x)


# A name, the rate, the arguments and how many steps: two or three times the length, if there is one.
TORCH = [
    ("LambdaLR", 0.1, {"lr_lambda": halves}, 60),
    ("MultiplicativeLR", 0.1, {"lr_lambda": shrinking}, 60),
    ("StepLR", 0.1, {"step_size": 30}, 200),
    ("StepLR", 0.1, {"step_size": 1, "gamma": 0.97}, 300),
    ("StepLR", 3, {"step_size": 7.0, "gamma": 1.1, "last_epoch": -1}, 100),
    ("MultiStepLR", 0.1, {"milestones": [30, 60, 90]}, 200),
    ("MultiStepLR", 0.1, {"milestones": (60, 30, 30, 1), "gamma": 0.5}, 100),
    ("MultiStepLR", 0.1, {"milestones": [0, 5.0, 7.5, -3], "gamma": 0.3}, 20),
    ("MultiStepLR", 0.1, {"milestones": []}, 20),
    ("ConstantLR", 0.1, {}, 20),
    ("ConstantLR", 0.1, {"factor": 0.7, "total_iters": 40}, 100),
    ("ConstantLR", 0.1, {"factor": 1.0, "total_iters": 1}, 5),
    ("ConstantLR", 0.1, {"factor": 0.5, "total_iters": 0}, 9),
    ("LinearLR", 0.1, {}, 20),
    ("LinearLR", 0.1, {"start_factor": 1e-3, "end_factor": 0.9, "total_iters": 100}, 300),
    ("LinearLR", 0.1, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 50}, 120),
    ("LinearLR", 0.1, {"start_factor": 0.5, "total_iters": 1}, 5),
    ("LinearLR", 0.1, {"start_factor": 0.5, "total_iters": 0}, 9),
    ("ExponentialLR", 0.1, {"gamma": 0.9}, 200),
    ("ExponentialLR", 0.1, {"gamma": 1.0}, 20),
    ("ExponentialLR", 1e-4, {"gamma": 1.05}, 200),
    ("PolynomialLR", 0.1, {}, 20),
    ("PolynomialLR", 0.1, {"total_iters": 80, "power": 2.5}, 200),
    ("PolynomialLR", 0.1, {"total_iters": 80, "power": 0.3}, 200),
    ("PolynomialLR", 0.1, {"total_iters": 10, "power": 0.0}, 30),
    ("PolynomialLR", 0.1, {"total_iters": 0}, 9),
    ("PolynomialLR", 0.1, {"total_iters": 1, "power": 2}, 9),
    ("CosineAnnealingLR", 0.1, {"T_max": 50, "eta_min": 1e-3}, 260),
    ("CosineAnnealingLR", 0.1, {"T_max": 50}, 120),
    ("CosineAnnealingLR", 0.1, {"T_max": 1}, 12),
    ("CosineAnnealingLR", 0.1, {"T_max": 2, "eta_min": 0.1}, 12),
    ("CosineAnnealingLR", 0.1, {"T_max": 12.5, "eta_min": 0.01}, 60),
    ("CosineAnnealingLR", 0.1, {"T_max": 20, "eta_min": 0.3}, 100),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 10}, 55),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 7, "T_mult": 2, "eta_min": 0.004}, 300),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 1, "T_mult": 3}, 300),
    ("CosineAnnealingWarmRestarts", 0.1, {"T_0": 5, "eta_min": 0.5}, 30),
    ("CyclicLR", None, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 20}, 200),
    ("CyclicLR", None, {"base_lr": 0.0, "max_lr": 0.1, "step_size_up": 8, "step_size_down": 23}, 200),
    ("CyclicLR", None, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 9, "mode": "triangular2"}, 200),
    ("CyclicLR", None, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 9, "mode": "exp_range", "gamma": 0.99}, 200),
    ("CyclicLR", None, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 1, "gamma": 0.5, "cycle_momentum": False}, 20),
    ("CyclicLR", None, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 9, "scale_fn": square_root}, 200),
    (
        "CyclicLR",
        None,
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 9, "scale_fn": halves, "scale_mode": "iterations"},
        200,
    ),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 100}, 100),
    ("OneCycleLR", None, {"max_lr": 0.1, "epochs": 7, "steps_per_epoch": 13, "anneal_strategy": "linear"}, 91),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 77, "three_phase": True, "div_factor": 10.0}, 77),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 50, "pct_start": 0.0, "final_div_factor": 1e2}, 50),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 50, "pct_start": 1.0}, 50),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 3}, 3),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 3, "three_phase": True}, 3),
    ("OneCycleLR", None, {"max_lr": 0.1, "total_steps": 1}, 1),
]  # fmt: skip

WARM = {"num_warmup_steps": 10, "num_training_steps": 100}
COLD = {"num_warmup_steps": 0, "num_training_steps": 60}
TRANSFORMERS = [
    ("constant", 1e-3, WARM, 20),
    ("get_constant_schedule", 1e-3, {"last_epoch": -1}, 20),
    ("constant_with_warmup", 1e-3, WARM, 30),
    ("get_constant_schedule_with_warmup", 1e-3, {"num_warmup_steps": 0}, 20),
    ("get_constant_schedule_with_warmup", 1e-3, {"num_warmup_steps": 1}, 20),
    ("linear", 1e-3, WARM, 250),
    ("linear", 1e-3, COLD, 150),
    ("get_linear_schedule_with_warmup", 1e-3, {"num_warmup_steps": 7, "num_training_steps": 7}, 20),
    ("get_linear_schedule_with_warmup", 1e-3, {"num_warmup_steps": 9, "num_training_steps": 5}, 20),
    ("cosine", 1e-3, WARM, 300),
    ("cosine", 1e-3, {**COLD, "num_cycles": 1.25}, 180),
    ("cosine", 1e-3, {**COLD, "num_cycles": 0}, 80),
    ("cosine", 1e-3, {**WARM, "num_cycles": -0.5}, 200),
    ("get_cosine_schedule_with_warmup", 1e-3, {"num_warmup_steps": 5, "num_training_steps": 5}, 20),
    ("cosine_with_restarts", 1e-3, {**WARM, "num_cycles": 2}, 250),
    ("cosine_with_restarts", 1e-3, {**COLD, "num_cycles": 7}, 150),
    ("cosine_with_restarts", 1e-3, {**WARM, "num_cycles": 2.5}, 150),
    ("get_cosine_with_hard_restarts_schedule_with_warmup", 1e-3, WARM, 250),
    ("get_cosine_with_hard_restarts_schedule_with_warmup", 1e-3, {**WARM, "num_cycles": 0}, 150),
    ("polynomial", 1e-3, WARM, 250),
    ("polynomial", 1e-3, {**COLD, "power": 2.5, "lr_end": 1e-5}, 150),
    ("polynomial", 1e-3, {**COLD, "power": 0.0, "lr_end": 1e-5}, 150),
    ("get_polynomial_decay_schedule_with_warmup", 1e-3, {"num_warmup_steps": 9, "num_training_steps": 5}, 20),
    ("inverse_sqrt", 1e-3, WARM, 300),
    ("inverse_sqrt", 1e-3, {"num_warmup_steps": 0}, 300),
    ("get_inverse_sqrt_schedule", 1e-3, {"num_warmup_steps": 20, "timescale": 3.5}, 300),
    ("cosine_with_min_lr", 1e-3, {**WARM, "min_lr": 1e-4}, 300),
    ("cosine_with_min_lr", 1e-3, {**COLD, "min_lr_rate": 0.25, "num_cycles": 2}, 200),
    ("get_cosine_with_min_lr_schedule_with_warmup", 1e-3, {**WARM, "min_lr_rate": 0.0}, 300),
    ("get_cosine_with_min_lr_schedule_with_warmup", 1e-3, {**WARM, "min_lr": 3e-3}, 300),
    ("cosine_warmup_with_min_lr", 1e-3, {**WARM, "min_lr": 1e-4}, 300),
    ("cosine_warmup_with_min_lr", 1e-3, {**WARM, "min_lr_rate": 0.1, "warmup_lr_rate": 0.3}, 300),
    ("cosine_warmup_with_min_lr", 1e-3, {**COLD, "min_lr_rate": 0.1, "warmup_lr_rate": 0.3}, 150),
    (
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
        1e-3,
        {"num_warmup_steps": 1, "num_training_steps": 30, "min_lr": 1e-5, "warmup_lr_rate": 0.5, "num_cycles": 0.75},
        99,
    ),
    ("warmup_stable_decay", 1e-3, {**WARM, "num_decay_steps": 30}, 250),
    ("warmup_stable_decay", 1e-3, {**COLD, "num_decay_steps": 30, "decay_type": "linear", "min_lr_ratio": 0.1}, 150),
    ("warmup_stable_decay", 1e-3, {**WARM, "num_decay_steps": 90, "decay_type": "1-sqrt", "warmup_type": "cosine"}, 99),
    ("warmup_stable_decay", 1e-3, {**WARM, "num_decay_steps": 99, "min_lr_ratio": 0.2, "warmup_type": "1-sqrt"}, 150),
    ("warmup_stable_decay", 1e-3, {**WARM, "num_decay_steps": 200, "decay_type": "linear"}, 250),
    ("warmup_stable_decay", 1e-3, {**WARM, "num_decay_steps": 40, "num_cycles": 1.5, "min_lr_ratio": 0.1}, 250),
    ("get_wsd_schedule", 1e-3, {"num_warmup_steps": 5, "num_stable_steps": 20, "num_decay_steps": 0}, 60),
    ("get_wsd_schedule", 1e-3, {**WARM, "num_stable_steps": 20, "num_decay_steps": 7}, 99),
]  # fmt: skip

TIMM = [
    ("CosineLRScheduler", 0.1, {"t_initial": 50}, 120),
    ("CosineLRScheduler", 0.1, {"t_initial": 50, "lr_min": 1e-4, "warmup_t": 5, "warmup_lr_init": 1e-5}, 120),
    ("CosineLRScheduler", 0.1, {"t_initial": 50, "lr_min": 1e-4, "warmup_t": 5, "warmup_prefix": True}, 120),
    ("CosineLRScheduler", 0.1, {"t_initial": 10, "cycle_limit": 4, "cycle_decay": 0.5}, 90),
    ("CosineLRScheduler", 0.1, {"t_initial": 10, "cycle_limit": 4, "cycle_decay": 0.1, "lr_min": 1e-2}, 90),
    ("CosineLRScheduler", 0.1, {"t_initial": 7, "cycle_limit": 4, "cycle_mul": 2.0, "k_decay": 1.5}, 200),
    ("CosineLRScheduler", 0.1, {"t_initial": 8, "cycle_limit": 4, "cycle_mul": 1.5, "cycle_decay": 0.7}, 150),
    ("CosineLRScheduler", 0.1, {"t_initial": 50, "k_decay": 0.6, "t_in_epochs": False}, 120),
    ("CosineLRScheduler", 0.1, {"t_initial": 1}, 9),
    ("CosineLRScheduler", 0.1, {"t_initial": 9, "cycle_limit": 0, "lr_min": 0.02}, 30),
    ("CosineLRScheduler", 0.1, {"t_initial": 8, "cycle_limit": 3, "cycle_mul": 0.5}, 15),
    ("TanhLRScheduler", 0.1, {"t_initial": 50}, 120),
    ("TanhLRScheduler", 0.1, {"t_initial": 50, "lb": -4.0, "ub": 4.0, "lr_min": 1e-3, "warmup_t": 9}, 120),
    ("TanhLRScheduler", 0.1, {"t_initial": 9, "cycle_limit": 3, "cycle_mul": 2, "cycle_decay": 0.5}, 120),
    ("TanhLRScheduler", 0.1, {"t_initial": 50, "warmup_t": 9, "warmup_prefix": True}, 120),
    ("PolyLRScheduler", 0.1, {"t_initial": 50}, 120),
    ("PolyLRScheduler", 0.1, {"t_initial": 50, "power": 2.0, "lr_min": 1e-3, "warmup_t": 9, "k_decay": 2.0}, 120),
    ("PolyLRScheduler", 0.1, {"t_initial": 9, "power": 1.0, "cycle_limit": 3, "cycle_mul": 2, "k_decay": 0.7}, 120),
    ("PolyLRScheduler", 0.1, {"t_initial": 9, "power": 0.0, "cycle_limit": 2, "cycle_decay": 0.5}, 60),
    ("StepLRScheduler", 0.1, {"decay_t": 30, "decay_rate": 0.1}, 120),
    ("StepLRScheduler", 0.1, {"decay_t": 2.4, "decay_rate": 0.97, "warmup_t": 3, "warmup_lr_init": 1e-6}, 300),
    ("StepLRScheduler", 0.1, {"decay_t": 7.5, "decay_rate": 0.5, "warmup_t": 3, "warmup_prefix": False}, 120),
    ("MultiStepLRScheduler", 0.1, {"decay_t": [10, 20, 20, 40], "decay_rate": 0.5}, 120),
    ("MultiStepLRScheduler", 0.1, {"decay_t": [1, 9], "decay_rate": 0.5}, 30),
    ("MultiStepLRScheduler", 0.1, {"decay_t": [0, 9.5], "decay_rate": 0.5, "warmup_t": 4}, 30),
    ("MultiStepLRScheduler", 0.1, {"decay_t": [2, 9], "decay_rate": 0.5, "warmup_t": 4, "warmup_prefix": False}, 30),
    ("WSDLRScheduler", 0.1, {"t_initial": 50, "decay_t": 10}, 120),
    ("WSDLRScheduler", 0.1, {"t_initial": 50, "decay_t": 50, "decay_fn": "linear", "warmup_t": 5, "lr_min": 1e-3}, 120),
    ("WSDLRScheduler", 0.1, {"t_initial": 50, "decay_t": 20, "decay_fn": "cosine", "warmup_t": 5}, 120),
    ("WSDLRScheduler", 0.1, {"t_initial": 50, "decay_t": 20, "decay_fn": "exp", "decay_ratio": 0.2}, 120),
    ("WSDLRScheduler", 0.1, {"t_initial": 50, "decay_t": 20, "decay_fn": "power", "decay_power": 2.0}, 120),
    ("WSDLRScheduler", 0.1, {"t_initial": 90, "decay_t": 20, "stable_fn": "rsqrt", "warmup_t": 5, "lr_min": 1e-3}, 150),
    ("WSDLRScheduler", 0.1, {"t_initial": 90, "decay_t": 20, "stable_fn": "rsqrt", "stable_timescale": 2.5}, 150),
    (
        "WSDLRScheduler",
        0.1,
        {"t_initial": 90, "decay_t": 20, "stable_fn": "power", "stable_power": 0.7, "warmup_t": 5, "lr_min": 0.02},
        150,
    ),
    ("cosine", 0.1, {"num_epochs": 40, "warmup_epochs": 5, "min_lr": 1e-5, "cooldown_epochs": 10}, 99),
    ("cosine", 0.1, {"num_epochs": 4, "step_on_epochs": False, "updates_per_epoch": 10, "cycle_limit": 3}, 150),
    ("tanh", 0.1, {"num_epochs": 40, "warmup_epochs": 5, "decay_rate": 0.5}, 99),
    ("step", 0.1, {"decay_rate": 0.5}, 200),
    ("step", 0.1, {"decay_epochs": 2.4, "decay_rate": 0.97, "warmup_epochs": 3, "warmup_lr": 1e-6}, 200),
    ("multistep", 0.1, {"decay_milestones": [10, 30], "warmup_epochs": 3, "warmup_prefix": True}, 99),
    ("poly", 0.1, {"num_epochs": 40, "decay_rate": 0.9, "warmup_epochs": 5}, 99),
    ("wsd", 0.1, {"num_epochs": 40, "warmup_epochs": 5}, 99),
    ("wsd", 0.1, {"num_epochs": 40, "warmup_epochs": 5, "decay_epochs": 15, "warmup_prefix": True}, 99),
    ("rsqrt", 0.1, {"num_epochs": 40, "warmup_epochs": 5, "min_lr": 1e-4}, 99),
    ("constant", 0.1, {"warmup_epochs": 5}, 30),
    ("create_scheduler_v2", 0.1, {"sched": "cosine", "num_epochs": 30}, 60),
]  # fmt: skip

OPTAX = [
    ("constant_schedule", {"value": 0.1}, 20),
    ("linear_schedule", {"init_value": 0.1, "end_value": 1e-3, "transition_steps": 50}, 120),
    ("linear_schedule", {"init_value": 0.0, "end_value": 0.1, "transition_steps": 50, "transition_begin": 7}, 120),
    ("linear_schedule", {"init_value": 0.1, "end_value": 0.0, "transition_steps": 0, "transition_begin": -7}, 20),
    ("linear_schedule", {"init_value": 0.1, "end_value": 0.0, "transition_steps": 1, "transition_begin": -7}, 20),
    ("polynomial_schedule", {"init_value": 0.1, "end_value": 1e-3, "power": 2.5, "transition_steps": 50}, 120),
    ("polynomial_schedule", {"init_value": 0.1, "end_value": 0.3, "power": 0.5, "transition_steps": 50}, 120),
    ("polynomial_schedule", {"init_value": 0.1, "end_value": 0.3, "power": 0, "transition_steps": 50}, 120),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 10, "decay_rate": 0.5}, 120),
    (
        "exponential_decay",
        {"init_value": 0.1, "transition_steps": 10, "decay_rate": 0.5, "staircase": True, "transition_begin": 3},
        120,
    ),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 7, "decay_rate": 0.5, "end_value": 1e-3}, 120),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 7, "decay_rate": 1.5, "end_value": 0.9}, 120),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 7, "decay_rate": 0.5, "end_value": 0.5}, 20),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 7, "decay_rate": 0.0}, 20),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 0, "decay_rate": 0.5}, 20),
    ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 50}, 120),
    ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 50.0, "alpha": 0.1, "exponent": 2.0}, 120),
    ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 50, "alpha": 1.5, "exponent": 0.5}, 120),
    ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 50, "alpha": 0.5, "exponent": 0.0}, 120),
    ("cosine_onecycle_schedule", {"transition_steps": 100, "peak_value": 0.1}, 250),
    ("cosine_onecycle_schedule", {"transition_steps": 33, "peak_value": 0.1, "pct_start": 0.5, "div_factor": 5.0}, 99),
    ("cosine_onecycle_schedule", {"transition_steps": 9, "peak_value": 0.1, "pct_start": 0.0}, 30),
    ("cosine_onecycle_schedule", {"transition_steps": 9, "peak_value": 0.1, "pct_start": 1.0}, 30),
    ("linear_onecycle_schedule", {"transition_steps": 100, "peak_value": 0.1}, 250),
    ("linear_onecycle_schedule", {"transition_steps": 3, "peak_value": 0.1, "final_div_factor": 10.0}, 9),
    ("piecewise_constant_schedule", {"init_value": 0.1, "boundaries_and_scales": {10: 0.5, 30: 0.1}}, 60),
    ("piecewise_constant_schedule", {"init_value": 0.1, "boundaries_and_scales": {9.5: 0.5, 0: 2.0, -3: 0.5}}, 60),
    ("piecewise_constant_schedule", {"init_value": 0.1}, 9),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 0.1, "boundaries_and_scales": {30: 0.0, 10: 2.0}},
        60,
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 0.1, "boundaries_and_scales": {0: 0.5, 20: 3.0, 50: 0.1}},
        99,
    ),
    ("piecewise_interpolate_schedule", {"interpolate_type": "cosine", "init_value": 0.1}, 9),
    ("warmup_constant_schedule", {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 10}, 30),
    ("warmup_constant_schedule", {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 0}, 30),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.0, "peak_value": 1e-3, "warmup_steps": 10, "decay_steps": 100, "end_value": 1e-5},
        250,
    ),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.5, "peak_value": 0.1, "warmup_steps": 0, "decay_steps": 40, "exponent": 1.7},
        99,
    ),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.5, "peak_value": 0.0, "warmup_steps": 5, "decay_steps": 40, "end_value": 0.2},
        99,
    ),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 10, "transition_steps": 9, "decay_rate": 0.5},
        99,
    ),
    (
        "warmup_exponential_decay_schedule",
        {
            "init_value": 0.05,
            "peak_value": 0.1,
            "warmup_steps": 4,
            "transition_steps": 9,
            "decay_rate": 0.5,
            "transition_begin": 6,
            "staircase": True,
            "end_value": 0.01,
        },
        99,
    ),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 20},
                {"init_value": 0.0, "peak_value": 0.05, "warmup_steps": 5, "decay_steps": 40, "end_value": 1e-3},
                {"init_value": 0.01, "peak_value": 0.02, "warmup_steps": 0, "decay_steps": 10},
            ]
        },
        150,
    ),
]  # fmt: skip

KERAS = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9}, 150),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 2.5, "decay_rate": 1.05, "name": "E"}, 150),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}, 99),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.0}, 20),
    ("PiecewiseConstantDecay", {"boundaries": [10, 30], "values": [0.1, 0.05, 0.01]}, 60),
    ("PiecewiseConstantDecay", {"boundaries": [0], "values": [0.1, 0.05]}, 9),
    ("PiecewiseConstantDecay", {"boundaries": [9.5, 20, 20], "values": [0.1, 0.05, 0.7, 0.01]}, 40),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 50}, 120),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 50, "power": 2.5, "end_learning_rate": 0.2}, 120),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "cycle": True}, 120),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 20, "cycle": True, "power": 2.5, "end_learning_rate": 0.0},
        120,
    ),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 1, "cycle": True, "power": 0.5}, 20),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9, "power": 0.0}, 20),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9}, 120),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 1.5, "decay_rate": 0.9}, 120),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 2.0, "staircase": True}, 99),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 50}, 120),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 50.0, "alpha": 0.1, "warmup_steps": 9}, 120),
    (
        "CosineDecay",
        {"initial_learning_rate": 0.0, "decay_steps": 50, "alpha": 0.1, "warmup_target": 0.1, "warmup_steps": 9},
        150,
    ),
    ("CosineDecay", {"initial_learning_rate": 0.5, "decay_steps": 20, "warmup_target": 0.1, "warmup_steps": 0}, 50),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10}, 200),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.0, "m_mul": 0.8}, 99),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 8, "t_mul": 1.5, "m_mul": 0.9, "alpha": 0.1},
        200,
    ),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 9.5, "t_mul": 2.0, "alpha": 0.2}, 200),
]  # fmt: skip

FASTAI = [
    ("SchedLin", None, {"start": 0.0, "end": 0.1, "steps": 40}, 41),
    ("SchedLin", None, {"start": 0.1, "end": 0.02, "steps": 1}, 2),
    ("SchedCos", None, {"start": 0.1, "end": 0.0, "steps": 40}, 41),
    ("SchedCos", None, {"start": 0.01, "end": 0.1, "steps": 33}, 34),
    ("SchedNo", None, {"start": 0.1, "end": 0.0, "steps": 40}, 41),
    ("SchedExp", None, {"start": 1e-7, "end": 10.0, "steps": 100}, 101),
    ("SchedExp", None, {"start": 0.1, "end": 1e-3, "steps": 7}, 8),
    ("SchedPoly", None, {"start": 0.1, "end": 0.0, "power": 2, "steps": 40}, 41),
    ("SchedPoly", None, {"start": 0.01, "end": 0.1, "power": 0.5, "steps": 40}, 41),
    ("SchedPoly", None, {"start": 0.01, "end": 0.1, "power": 0, "steps": 10}, 10),
    ("combined_cos", None, {"pct": 0.25, "start": 0.01, "middle": 0.1, "end": 0.0, "steps": 40}, 41),
    ("combined_cos", None, {"pct": 0.3, "start": 0.01, "middle": 0.1, "end": 1e-5, "steps": 37}, 38),
    ("combined_cos", None, {"pct": 1 / 3, "start": 0.01, "middle": 0.1, "end": 1e-5, "steps": 50}, 51),
    ("fit_one_cycle", 1e-3, {"n_epoch": 5, "n_iter": 20}, 100),
    ("fit_one_cycle", None, {"n_epoch": 3, "n_iter": 17, "lr_max": 0.1, "pct_start": 0.3}, 51),
    ("fit_one_cycle", 1e-3, {"n_epoch": 1, "n_iter": 9, "lr_max": 0.1, "div": 5.0, "div_final": 10.0}, 9),
    ("fit_one_cycle", 1e-3, {"n_epoch": 2, "n_iter": 50, "moms": (0.9, 0.8, 0.9), "wd": 0.1}, 100),
    ("fit_one_cycle", 1e-3, {"n_epoch": 1, "n_iter": 1}, 1),
    ("fit_flat_cos", 1e-3, {"n_epoch": 5, "n_iter": 20}, 100),
    ("fit_flat_cos", 1e-3, {"n_epoch": 3, "n_iter": 7, "pct_start": 0.5, "div_final": 100.0}, 21),
    ("fit_sgdr", 1e-3, {"n_cycles": 3, "cycle_len": 1, "n_iter": 20}, 140),
    ("fit_sgdr", None, {"n_cycles": 2, "cycle_len": 2, "n_iter": 10, "lr_max": 0.1, "cycle_mult": 3}, 80),
    ("fit_sgdr", None, {"n_cycles": 1, "cycle_len": 3, "n_iter": 5, "lr_max": 0.1}, 15),
]  # fmt: skip

SETTINGS = [
    *(("torch", *setting) for setting in TORCH),
    *(("transformers", *setting) for setting in TRANSFORMERS),
    *(("timm", *setting) for setting in TIMM),
    *(("optax", name, None, *setting) for name, *setting in OPTAX),
    *(("keras", name, None, *setting) for name, *setting in KERAS),
    *(("fastai", *setting) for setting in FASTAI),
]


def worst_difference(ours, theirs):
    """Return the largest relative difference between two arrays of values.

    Near 0 all of them subtract nearly equal numbers, as in 1 + cos: there the rounding of the cosine, 1e-16, is left of
    a value of 1e-4. So a value below 1e-4 of the largest one is compared with that.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-4 * theirs.max())).max())


def slow_sources(rows):
    """Mark rows of Keras, which takes long to import, and of optax, which takes long without compilation."""
    return [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] in ("keras", "optax"))) for row in rows]


def name_of(setting):
    source, name, _, arguments, _ = setting
    return f"{source}-{name}-{'-'.join(f'{key}={str(value)[:12]}' for key, value in arguments.items())}"


@pytest.mark.parametrize("source", slow_sources([(name,) for name in SOURCES]))
def test_every_value_is_that_of_the_library(source):
    @each("setting", [setting for setting in SETTINGS if setting[0] == source], ids=name_of)
    def compare(setting):
        _, name, lr, arguments, steps = setting
        theirs = peers.rates(source, name, arguments, lr, steps)
        ours = schedules.get(name, source=source, lr=lr, **arguments)
        assert len(theirs) == steps
        assert worst_difference(ours.values(steps), theirs) <= peers.rounding(source)

    compare()


# Their rounding moves a step: what differs, and at which steps. Everywhere else there is no difference.
LATE = [
    # log(243) / log(3) is 4.999…, so that the fifth restart is one step late.
    ("timm", "CosineLRScheduler", 0.1, {"t_initial": 2, "cycle_mul": 3.0, "cycle_limit": 7}, 299, [242]),
    # The number of 2.2 is a little more than 2.2, so that 11 // 2.2 is 4.
    ("timm", "StepLRScheduler", 0.1, {"decay_t": 2.2, "decay_rate": 0.97}, 40, [11, 22]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name", "lr", "arguments", "steps", "late"), LATE)
def test_steps_that_rounding_moves_in_the_library_are_exact(source, name, lr, arguments, steps, late):
    theirs = np.array(peers.rates(source, name, arguments, lr, steps))
    ours = schedules.get(name, source=source, lr=lr, **arguments).values(steps)
    assert np.flatnonzero(np.abs(ours - theirs) > 1e-12).tolist() == late
    others = np.delete(np.arange(steps), late)
    assert worst_difference(ours[others], theirs[others]) <= 1e-12


@pytest.mark.parametrize("arguments", [{}, {"three_phase": True}, {"anneal_strategy": "linear", "pct_start": 0.9}])
def test_one_cycle_stays_at_its_end_where_torch_raises(arguments):
    arguments = {"max_lr": 0.1, "total_steps": 50, **arguments}
    theirs = peers.rates("torch", "OneCycleLR", arguments, None, 51)
    ours = schedules.get("OneCycleLR", source="torch", **arguments)
    assert worst_difference(ours.values(50), theirs[:50]) <= 1e-12
    assert ours(50) == ours(500) == pytest.approx(theirs[49])
    assert theirs[50] != pytest.approx(theirs[49])  # even negative on a line
    with pytest.raises(ValueError, match="Tried to step 51 times"):
        peers.rates("torch", "OneCycleLR", arguments, None, 52)


@pytest.mark.parametrize("setting", FASTAI, ids=lambda setting: setting[0])
def test_schedules_of_fastai_stay_at_their_end(setting):
    name, lr, arguments, _ = setting
    schedule = schedules.get(name, source="fastai", lr=lr, **arguments)
    last = schedule.length or 0
    assert schedule(last) == schedule(last + 1) == schedule(10 * last + 7)


REPORTS = [1.0, 0.5, 0.6, 0.4999, 0.49999, 0.45, 0.45, 0.7, 0.7, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.05, *[0.3] * 40]
PLATEAUS = [
    ("torch", "ReduceLROnPlateau", {"patience": 2}),
    ("torch", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "min_lr": 0.01}),
    ("torch", "ReduceLROnPlateau", {"patience": 1, "factor": 0.3, "cooldown": 3, "threshold": 0.1}),
    ("torch", "ReduceLROnPlateau", {"patience": 2, "mode": "max", "threshold_mode": "abs", "threshold": 0.01}),
    ("torch", "ReduceLROnPlateau", {"patience": 0, "factor": 0.9, "eps": 0.006}),
    ("torch", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "eps": 0.006, "min_lr": 0.02}),
    ("torch", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "eps": 0.0, "min_lr": 0.5}),
    ("transformers", "reduce_lr_on_plateau", {"patience": 2, "num_warmup_steps": 10, "num_training_steps": 100}),
    ("transformers", "get_reduce_on_plateau_schedule", {"patience": 1, "factor": 0.5, "min_lr": 1e-3}),
    ("timm", "PlateauLRScheduler", {"patience_t": 2, "decay_rate": 0.5, "mode": "min", "lr_min": 0.01}),
    ("timm", "PlateauLRScheduler", {"patience_t": 1, "cooldown_t": 2}),
    ("timm", "plateau", {"patience_epochs": 1, "decay_rate": 0.5, "min_lr": 1e-3, "plateau_mode": "min"}),
    ("keras", "ReduceLROnPlateau", {"patience": 2}),
    ("keras", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "min_lr": 0.01, "monitor": "loss"}),
    ("keras", "ReduceLROnPlateau", {"patience": 2, "factor": 0.5, "cooldown": 3, "min_delta": -0.01}),
    ("keras", "ReduceLROnPlateau", {"patience": 2, "monitor": "val_auc", "mode": "max", "verbose": 0}),
    ("keras", "ReduceLROnPlateau", {"patience": 1, "min_lr": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name", "arguments"), slow_sources(PLATEAUS))
def test_the_learning_rate_after_every_report_is_that_of_the_library(source, name, arguments):
    theirs = peers.rates_after(source, name, arguments, 0.1, REPORTS)
    opt = lrcore.SGD(np.zeros(1), lr=schedules.get(name, source=source, lr=0.1, **arguments))
    ours = [opt.lr]
    for report in REPORTS:
        opt.report(report)
        ours.append(opt.lr)
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_a_plateau_of_timm_comes_after_its_warm_up():
    arguments = {"patience_t": 1, "decay_rate": 0.5, "mode": "min", "warmup_t": 4, "warmup_lr_init": 0.02}
    theirs = peers.rates_after("timm", "PlateauLRScheduler", arguments, 0.1, [1.0] * 12)
    opt = lrcore.SGD(np.zeros(1), lr=schedules.get("PlateauLRScheduler", source="timm", lr=0.1, **arguments))
    ours = [opt.lr]
    for epoch in range(1, 13):
        opt.step(np.zeros(1))
        if epoch > 4:
            opt.report(1.0)
        ours.append(opt.lr)
    assert ours == pytest.approx(theirs, rel=1e-12)


# Where that library fails: how it does, and what is said here.
DEFECTS = [
    # pytorch#185006, #177833, #174025, #180187
    ("torch", "ConstantLR", 0.1, {"factor": 0.0}, ZeroDivisionError, r"factor must be in \(0, 1\]"),
    ("torch", "StepLR", 0.1, {"step_size": 0}, ZeroDivisionError, "step_size must be >= 1"),
    ("torch", "CosineAnnealingLR", 0.1, {"T_max": 0}, ZeroDivisionError, "T_max must be > 0"),
    ("torch", "PolynomialLR", 0.1, {"power": -1.0}, ZeroDivisionError, "power must be in"),
    ("torch", "OneCycleLR", None, {"max_lr": 0.1, "total_steps": 10, "pct_start": 0.1}, ZeroDivisionError, "not be 1"),
    ("torch", "CyclicLR", None, {"base_lr": 0.1, "max_lr": 1, "step_size_up": 0}, ZeroDivisionError, "up must be >= 1"),
    # transformers#47285
    (
        "transformers",
        "polynomial",
        0.1,
        {"num_warmup_steps": 5, "num_training_steps": 5},
        ZeroDivisionError,
        "must not be num_training_steps",
    ),
    ("transformers", "inverse_sqrt", 0.1, {"num_warmup_steps": 5, "timescale": 0}, ZeroDivisionError, "timescale"),
    ("timm", "StepLRScheduler", 0.1, {"decay_t": 0}, ZeroDivisionError, "decay_t must be > 0"),
    ("timm", "CosineLRScheduler", 0.1, {"t_initial": 0}, AssertionError, "t_initial must be > 0|steps must be"),
    ("optax", "sgdr_schedule", None, {"cosine_kwargs": []}, IndexError, "at least one"),
    ("keras", "PiecewiseConstantDecay", None, {"boundaries": [], "values": [0.1]}, IndexError, "at least one"),
    ("fastai", "fit_sgdr", 1, {"n_cycles": 2, "cycle_len": 1, "n_iter": 9, "cycle_mult": 1}, ZeroDivisionError, "be 1"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name", "lr", "arguments", "failure", "message"), slow_sources(DEFECTS))
def test_arguments_on_which_the_library_fails_are_errors(source, name, lr, arguments, failure, message):
    with pytest.raises(failure):
        peers.rates(source, name, arguments, lr, 20)
    with pytest.raises(ValueError, match=message):
        schedules.get(name, source=source, lr=lr, **arguments)


COSINE = {"lr": 0.1, "T_max": 5}
REFUSED = [
    ("pytorch", "CosineAnnealingLR", {}, ValueError, "there is no source 'pytorch'; there are torch, trans"),
    ("torch", "cosine", {}, ValueError, "torch has no schedule 'cosine'; there are ConstantLR, Cosine"),
    ("torch", "SequentialLR", {}, ValueError, "torch's SequentialLR is not supported: it is made of sched"),
    ("torch", "ChainedScheduler", {}, ValueError, "torch's ChainedScheduler is not supported: it is made of"),
    ("transformers", "greedy", {}, ValueError, "transformers's greedy is not supported: its learning rate ri"),
    ("torch", "StepLR", {"lr": 0.1}, TypeError, "torch's StepLR needs 'step_size'; it takes lr, step_si"),
    ("torch", "StepLR", {"step_size": 3}, TypeError, "torch's StepLR needs 'lr'; it takes lr, st"),
    ("torch", "StepLR", {}, TypeError, "torch's StepLR needs 'lr', 'step_size'; it takes lr, step_size, "),
    (
        "torch",
        "CosineAnnealingLR",
        {**COSINE, "T_mult": 3},
        TypeError,
        "torch's CosineAnnealingLR has no argument 'T_mult'; it takes lr, T_max, eta_min, last_epoch",
    ),
    (
        "torch",
        "OneCycleLR",
        {"lr": 0.1, "max_lr": 0.1, "total_steps": 9},
        TypeError,
        "torch's OneCycleLR takes no lr, since its own arguments hold the learning rate; it takes max_lr",
    ),
    ("optax", "constant_schedule", {"lr": 0.1, "value": 1}, TypeError, "optax's constant_schedule takes"),
    ("torch", "CosineAnnealingLR", {**COSINE, "last_epoch": 3}, ValueError, "last_epoch must be -1, got 3"),
    ("torch", "StepLR", {"lr": 0.1, "step_size": 2.5}, TypeError, "step_size must be a whole number, g"),
    ("torch", "StepLR", {"lr": 0.1, "step_size": True}, TypeError, "step_size must be a whole number, g"),
    ("torch", "StepLR", {"lr": -0.1, "step_size": 2}, ValueError, "Step: start must be in [0, inf), got"),
    ("torch", "LinearLR", {"lr": 0.1, "start_factor": 0}, ValueError, "start_factor must be in (0, 1] and"),
    ("torch", "OneCycleLR", {"max_lr": 0.1}, ValueError, "total_steps, or both epochs and steps_per_epoch"),
    (
        "torch",
        "OneCycleLR",
        {"max_lr": 0.1, "total_steps": 9, "anneal_strategy": "cosine"},
        ValueError,
        "anneal_strategy must be 'cos' or 'linear', got 'cosine'",
    ),
    ("torch", "ReduceLROnPlateau", {"lr": 0.1, "factor": 1.0}, ValueError, "factor must be < 1, got 1.0"),
    ("transformers", "cosine_with_min_lr", {"lr": 0.1, **WARM}, ValueError, "min_lr or min_lr_rate must be"),
    (
        "transformers",
        "polynomial",
        {"lr": 0.1, **WARM, "lr_end": 0.2},
        ValueError,
        "lr_end must be less than lr, 0.1, got 0.2",
    ),
    (
        "transformers",
        "cosine_with_restarts",
        {"lr": 0.1, **WARM, "num_cycles": 91},
        ValueError,
        "num_cycles must be in [0, 90], the steps after the warm-up, got 91",
    ),
    ("timm", "cosine", {"lr": 0.1, "noise": 0.5}, ValueError, "noise must be None, got 0.5"),
    ("timm", "MultiStepLRScheduler", {"lr": 0.1, "decay_t": [9, 3]}, ValueError, "decay_t must be sorted"),
    ("timm", "create_scheduler_v2", {"lr": 0.1, "sched": "x"}, ValueError, "there is no sched 'x'; there"),
    ("optax", "cosine_decay_schedule", {"init_value": 1, "decay_steps": 0}, ValueError, "decay_steps must be"),
    (
        "optax",
        "warmup_cosine_decay_schedule",
        {"init_value": 0, "peak_value": 1, "warmup_steps": 5, "decay_steps": 5},
        ValueError,
        "decay_steps, warm-up included, must be > warmup_steps, got 5, 5",
    ),
    (
        "optax",
        "piecewise_constant_schedule",
        {"init_value": 1, "boundaries_and_scales": {3: -1.0}},
        ValueError,
        "scales must be >= 0, got -1.0 at 3",
    ),
    (
        "keras",
        "CosineDecayRestarts",
        {"initial_learning_rate": 1, "first_decay_steps": 9, "t_mul": 0.5},
        ValueError,
        "t_mul must be >= 1, got 0.5: Keras has no number after ever shorter cycles",
    ),
    ("keras", "ReduceLROnPlateau", {"lr": 1, "monitor": "f1"}, ValueError, "mode must be 'min' or 'max' for "),
    (
        "keras",
        "PolynomialDecay",
        {"initial_learning_rate": 1, "decay_steps": 9, "cycle": True, "power": 0.7},
        ValueError,
        "with cycle, power must be a multiple of 0.5, and end_learning_rate at most the initial one",
    ),
    ("fastai", "fit_one_cycle", {"n_epoch": 1, "n_iter": 9}, TypeError, "lr_max, or lr for that of the l"),
    ("fastai", "SchedLin", {"start": 0, "end": 1}, TypeError, "fastai's SchedLin needs 'steps'; it takes"),
]  # fmt: skip


@each(("source", "name", "arguments", "exception", "message"), REFUSED)
def test_unknown_missing_and_wrong_arguments_are_named(source, name, arguments, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        schedules.get(name, source=source, **arguments)


def test_a_configuration_of_keras_can_contain_its_name():
    config = {"initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.5, "staircase": False, "name": "decay"}
    assert schedules.get("ExponentialDecay", source="keras", **config) == schedules.Exponential(0.1, 0.5, 9)


def _names(source):
    module = __import__(f"lrcore.schedules.compat.{source}", fromlist=["NAMES"])
    return set(module.NAMES), set(module.REFUSED)


def test_every_name_of_torch_is_known():
    theirs = set(peers.load("torch.optim.lr_scheduler").__all__) - {"LRScheduler"}
    names, refused = _names("torch")
    assert names | refused == theirs


def test_every_name_of_transformers_is_known():
    optimization = peers.load("transformers.optimization")
    types = {kind.value for kind in optimization.SchedulerType}
    functions = {function.__name__ for function in optimization.TYPE_TO_SCHEDULER_FUNCTION.values()}
    names, refused = _names("transformers")
    assert names | refused == types | functions | {"GreedyLR"}


def test_every_name_of_optax_is_known():
    schedule = peers.load("optax").schedules
    names, refused = _names("optax")
    assert names | refused == {name for name in dir(schedule) if re.search(".(_schedule|_schedules|_decay)$", name)}


@pytest.mark.slow
def test_every_name_of_keras_is_known():
    keras = peers.load("keras")
    names, _ = _names("keras")
    kinds = {name for name, kind in vars(keras.optimizers.schedules).items() if inspect.isclass(kind)}
    assert names == kinds - {"LearningRateSchedule"} | {"ReduceLROnPlateau"}


@pytest.mark.parametrize("source", SOURCES)
def test_every_name_is_tested(source):
    tested = {name for given, name, *_ in SETTINGS if given == source}
    tested |= {name for given, name, *_ in PLATEAUS if given == source}
    assert tested == _names(source)[0]
    assert sum(given == source for given, *_ in SETTINGS) >= 20


@each("setting", SETTINGS, ids=name_of)
def test_a_schedule_of_another_library_can_be_compared_and_saved(setting):
    source, name, lr, arguments, steps = setting
    schedule = schedules.get(name, source=source, lr=lr, **arguments)
    assert [schedule(step) for step in range(steps)] == schedule.values(steps).tolist()
    if any(callable(value) for value in arguments.values()):
        return
    assert schedule == schedules.get(name, source=source, lr=lr, **arguments)
    assert schedules.Schedule.from_json(schedule.to_json()) == schedule


def test_no_other_library_is_imported():
    code = (
        "import json, sys; from lrcore import schedules\n"
        "for source, name, arguments in json.load(sys.stdin): schedules.get(name, source=source, **arguments)\n"
        "libraries = {'torch', 'transformers', 'timm', 'optax', 'jax', 'keras', 'tensorflow', 'fastai'}\n"
        "print(*libraries & set(sys.modules))"
    )
    first = {
        source: (name, {**arguments, **({} if lr is None else {"lr": lr})})
        for source, name, lr, arguments, _ in reversed(SETTINGS)
        if not any(map(callable, arguments.values()))
    }
    given = json.dumps([(source, *setting) for source, setting in first.items()])
    run = subprocess.run([sys.executable, "-c", code], input=given, text=True, capture_output=True, check=False)  # noqa: S603
    assert (run.stdout, run.stderr) == ("\n", "")


@pytest.mark.parametrize("cycle_decay", [1.0, 0.5])
@pytest.mark.parametrize("k", [1.0, 0.7])
@pytest.mark.parametrize("name", ["CosineLRScheduler", "TanhLRScheduler", "PolyLRScheduler"])
def test_cycles_of_timm_can_begin_at_fractional_steps(name, k, cycle_decay):
    cycles = {"t_initial": 30, "cycle_mul": 1.5, "cycle_limit": 4, "cycle_decay": cycle_decay, "lr_min": 0.01}
    more = {} if name == "TanhLRScheduler" else {"k_decay": k}
    rate = lrcore.schedules.get(name, source="timm", lr=0.1, **cycles, **more)
    for t in range(1, 300):  # the first step has the rate of the optimizer
        # As timm computes it.
        i = math.floor(math.log(1 - t / 30 * (1 - 1.5), 1.5))
        length, since = 1.5**i * 30, t - (1 - 1.5**i) / (1 - 1.5) * 30
        share, top = since / length, 0.1 * cycle_decay**i
        shapes = {
            "CosineLRScheduler": 0.5 * (1 + math.cos(math.pi * share ** more.get("k_decay", 1.0))),
            "TanhLRScheduler": 0.5 * (1 - math.tanh(-7.0 * (1.0 - share) + 3.0 * share)),
            "PolyLRScheduler": (1 - share ** more.get("k_decay", 1.0)) ** 0.5,
        }
        expected = 0.01 + (top - 0.01) * shapes[name] if i < 4 else 0.01
        assert rate(t) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "source", "arguments", "what"),
    [
        ("PolyLRScheduler", "timm", {"t_initial": 2 * 10**6, "k_decay": 2.0}, "cycles with k_decay"),
        ("PolyLRScheduler", "timm", {"t_initial": 10, "cycle_mul": 10, "cycle_limit": 9, "k_decay": 2.0},
         "cycles with k_decay"),
        ("CosineLRScheduler", "timm", {"t_initial": 30, "cycle_mul": 1.5, "cycle_limit": 40, "k_decay": 2.0},
         "cycles that begin between steps"),
        ("SchedPoly", "fastai", {"start": 0.1, "end": 0.0, "power": 2.0, "steps": 10**9}, "SchedPoly"),
    ],
)  # fmt: skip
def test_schedules_without_a_formula_have_a_longest_table(name, source, arguments, what):
    given = arguments if source == "fastai" else {"lr": 0.1, **arguments}
    with pytest.raises(ValueError, match=rf"^{what} may have 1000000 steps, since they become a table, got "):
        schedules.get(name, source=source, **given)
