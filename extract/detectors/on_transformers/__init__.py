"""Detectors run by Hugging Face's transformers, whose detectors are imported here alone."""
