"""Texts of images: captions, questions and statements from their official files."""
