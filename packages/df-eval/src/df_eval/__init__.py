"""Evaluating DualForce runs: metrics with controls and intervals, report."""

__version__ = "0.1.0"
