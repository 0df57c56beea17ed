"""What is learned: one file per task, one protocol for all."""
