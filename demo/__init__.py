"""A small drawn world with texts that are true by construction: the pipeline's embedded default."""
