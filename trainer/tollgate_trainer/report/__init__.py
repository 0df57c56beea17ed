"""The report of a run: one HTML file that needs nothing else, made from the files in the output folder. No torch."""

from tollgate_trainer.report.page import build, write

__all__ = ["build", "write"]
