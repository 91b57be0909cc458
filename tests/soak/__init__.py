"""Adversarial runs with a time limit: ``python -m soak`` tries to break lrcore, and prints what it tried."""
