"""Models: where they come from, how they are made, and how they are saved and loaded. Torch is imported on use only."""

from tollgate_trainer.models.finished import ModelInfo, load_finished

__all__ = ["ModelInfo", "load_finished"]
