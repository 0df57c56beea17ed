"""Configurations that people bring from elsewhere -> a manifest, with nothing dropped silently. Pure."""
