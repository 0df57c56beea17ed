"""`tollgate dataset`: looking at training data, checking it, and making files of it. Nothing here imports torch.

The parts that decide (statistics, leakage, checks, draw, partition, shapes) are pure; subject, rows and the commands
touch files.
"""
