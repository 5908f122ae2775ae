"""Detectors run by torchvision, which works everywhere."""
