"""Evaluation: what a trained model is worth, with intervals, sample counts and evidence. No torch at import."""
