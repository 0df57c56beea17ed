"""TrainingRuns: what is known, what to do about it, and the Jobs that do it."""
