"""Experiment trackers, told by a process of their own from the run's events (docs/how-to/track.md).

logs/events.jsonl is the queue: the training writes it anyway and never waits for a tracker. The teller reads on from
the byte that it has told last, so a server that was away, a stop and a restart lose nothing and need no memory.
A process and not a thread, because importing a tracker's library holds the interpreter's lock for seconds, and because
data loaders fork.
"""
