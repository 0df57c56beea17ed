"""Promotion: which run holds a stage of a PromotionPolicy, and the ConfigMaps that say so."""
