"""Formats of other systems: nine layouts of region features, read and written."""

from semvlp.shards.formats.import_export import export_format, import_format
from semvlp.shards.formats.table import FORMATS

__all__ = ["FORMATS", "export_format", "import_format"]
