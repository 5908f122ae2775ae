"""Pages of answers and of matches: photographs with their regions, and how probable each is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semvlp.app.reply import Reply
from semvlp.eval.pages.gallery import picture
from semvlp.extract.images.find import ImageFile
from semvlp.pages import render, write_page
from semvlp.shards.record import Regions

MAX_WIDTH = 800
# Regions under the largest share of the attention times this are drawn faintly.
FAINT = 0.05


def write_answers(path: Path, replies: Sequence[tuple[Sequence[ImageFile], Reply]]) -> None:
    """Write one page with all replies, each with the photographs that it is about.

    Raises:
        ConfigError: something else than a page of ours is there.
    """
    page = render(
        Path(__file__).with_name("answers.html"),
        replies=[
            {
                "text": reply.text,
                "mode": reply.mode,
                "answers": [answer._asdict() for answer in reply.answers],
                "pictures": [
                    _picture(file, regions, between.to_regions[0].tolist())
                    for file, regions, between in zip(
                        files, reply.regions, reply.attention, strict=True
                    )
                ],
            }
            for files, reply in replies
        ],
    )
    write_page(path, page)


def write_matches(
    path: Path, text: str, chances: Sequence[float], pictures: Sequence[Mapping[str, Any]]
) -> None:
    """Write one page with the photographs that fit a text.

    Args:
        chances: 0..1 for each photograph.
        pictures: as `eval.pages.gallery.Pictures` draws them.

    Raises:
        ConfigError: something else than a page of ours is there.
    """
    matches = list(zip(chances, pictures, strict=True))
    write_page(path, render(Path(__file__).with_name("matches.html"), text=text, matches=matches))


def _picture(file: ImageFile, regions: Regions, shares: Sequence[float]) -> dict[str, Any]:
    """Return a photograph and its regions; `shares` is what [CLS] gives to each of them."""
    most = max(shares, default=0.0) or 1.0
    return {
        **picture(regions, file, MAX_WIDTH),
        "name": file.path.name,
        "boxes": [
            {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0, "share": max(share / most, FAINT)}
            for (x0, y0, x1, y1), share in zip(regions.boxes.tolist(), shares, strict=False)
        ],
    }
