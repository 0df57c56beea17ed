"""From a manifest, its data and a device to the numbers of a run: batch, length, memory. Pure; no torch, no I/O."""
