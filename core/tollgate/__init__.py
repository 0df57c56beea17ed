"""The contract and the rules of Tollgate: pure functions and models; no clock, no torch."""

__version__ = "0.1.0"
