"""Kinds of image files: those that are taken, and those that are told apart to be refused."""

from collections.abc import Callable
from pathlib import PurePosixPath

from PIL import features

_READS_AVIF = "avif" in features.modules and features.check("avif")

# Only these: others of Pillow's plugins start programs (EPS) or hold no photograph.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", *(("AVIF",) if _READS_AVIF else ()))
TAKEN_SINCE_0_2 = frozenset((".jfif", ".jpe", *((".avif",) if _READS_AVIF else ())))
"""Extensions of photographs that version 0.1 did not look at."""
EXTENSIONS = TAKEN_SINCE_0_2.union(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
)
HEAD_BYTES = 512
"""So many first bytes tell the kind of a file."""

_OTHERS = {
    **{".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF", ".jxl": "JPEG XL", ".jp2": "JPEG 2000"},
    **{".svg": "SVG", ".svgz": "SVG", ".psd": "Photoshop"},
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".rw2"), "raw camera data"),
}
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
# ISO/IEC 14496-12 brands, bytes 8 to 12 of a file whose bytes 4 to 8 are `ftyp`.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}


def is_image(name: str) -> bool:
    """Tell by its extension whether a file is an image that is taken; hidden files are none."""
    path = PurePosixPath(name)
    return not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS


def why_not_taken(name: str, head: Callable[[], bytes]) -> str:
    """Return why an image is not taken from a folder or tar; empty where the file is no image.

    Args:
        head: gives its first bytes, which are read where the name has no extension.
    """
    path = PurePosixPath(name)
    if path.name.startswith(".") or path.suffix.lower() in EXTENSIONS:
        return ""
    if path.suffix:
        kind = _OTHERS.get(path.suffix.lower(), "")
        return kind and f"{kind} is none of the formats {', '.join(FORMATS)}; save it as JPEG"
    kind = kind_of(head())
    return kind and (
        f"{kind} in a file without an extension; rename it, or name it in a list of files"
    )


def kind_of(head: bytes) -> str:
    """Return the kind of image that has these first bytes; empty where it is none that is known."""
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    return "SVG" if head.lstrip().startswith((b"<svg", b"<?xml")) and b"<svg" in head else ""
