"""Compute kernels, one folder per operation: each has a plain reference and fast versions that equal it."""
