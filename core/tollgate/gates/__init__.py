"""Gates: what evidence is, how it is judged, and which run holds a stage. Pure functions; no evidence, no promotion."""
