"""Formats of other systems: nine layouts of region features, read and written."""

from semvlp.shards.formats.table import FORMATS
from semvlp.shards.formats.transfer import export_format, import_format

__all__ = ["FORMATS", "export_format", "import_format"]
