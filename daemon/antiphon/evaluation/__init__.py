"""Evaluation: what a model is worth beside honest baselines, on windows of music that it has not seen."""
