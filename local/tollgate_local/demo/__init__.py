"""`make demo`: the whole way of a training run on a real cluster, told scene by scene."""
