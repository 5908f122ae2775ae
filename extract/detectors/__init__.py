"""Detectors: what one is, which are known by name, and the backends that run them."""
