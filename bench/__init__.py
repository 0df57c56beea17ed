"""Figures that are measured, never asserted: raw files in bench/results, tables in docs."""
