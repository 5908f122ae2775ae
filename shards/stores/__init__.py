"""Samples on disk: tar shards and LMDB, read and written."""
