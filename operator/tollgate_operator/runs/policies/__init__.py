"""One file per rule: `(situation, now) -> Decision | None`. decide.py holds their order."""
