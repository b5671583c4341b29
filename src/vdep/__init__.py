"""VDEP: Vision Dynamic Embedding-Guided Pretraining, and the workflow that reproduces its paper."""

__version__ = "0.1.0"
