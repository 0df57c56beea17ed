"""The life of an attempt: lease, stop flag, checkpoints, resume, goodput."""
