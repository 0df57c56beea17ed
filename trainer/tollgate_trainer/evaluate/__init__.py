"""Evaluation: what a trained model is worth, with intervals, sample counts and evidence. No torch at import."""

SETTINGS = "TOLLGATE_EVALUATION_SETTINGS"
"""In the environment: a JSON file that stands in for manifest.evaluation, set on a laptop only."""

DEFAULT_CONFIDENCE = 0.95
"""Of each bound, where no policy asks for another."""
