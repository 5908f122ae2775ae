"""Weights of detectors: our own files, published families, downloads."""
