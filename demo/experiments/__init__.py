"""Whole experiments on real pictures, each one command from pictures to a score."""
