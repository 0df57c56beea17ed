"""Checkpoints in an S3-like store: staged on the node's disk, uploaded beside the training, committed by one object.

Nothing here imports torch.
"""
