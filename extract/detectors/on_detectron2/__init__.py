"""Detectors run by detectron2, which is imported here alone."""
