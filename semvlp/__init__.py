"""SemVLP: region-feature vision-language pre-training, one encoder in two modes."""

__version__ = "0.2.0"
