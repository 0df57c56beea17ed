"""The parts of the launcher, pid 1 of the pod: settings, watch, processes, surroundings. No torch here."""
