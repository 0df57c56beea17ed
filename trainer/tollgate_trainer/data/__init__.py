"""Training data: formats, digest, splits, tokens and the order of training. Nothing here imports torch."""

from tollgate_trainer.data.splits import Documents, Splits, load_documents, load_splits, tokenise_documents

__all__ = ["Documents", "Splits", "load_documents", "load_splits", "tokenise_documents"]
