"""Matching many texts with many images: the matrix of scores, and what is computed once."""
