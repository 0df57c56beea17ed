"""`tollgate run` and its companions: the pod's own launcher and trainer on this machine. Nothing here imports torch."""
