"""The `tollgate` command: the root only; the other packages add their commands by entry points."""
