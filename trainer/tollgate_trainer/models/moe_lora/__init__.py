"""Mixture of LoRA experts: one wide LoRA whose blocks of rank r are gated per token by a router."""
