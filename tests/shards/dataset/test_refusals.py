"""What was refused is counted by why, not by where."""

from semvlp.shards.dataset.manifest import Refusal
from semvlp.shards.dataset.refusals import reasons_of


def _refused(*reasons: str) -> list[Refusal]:
    return [
        Refusal(position=n, image_id=f"im{n}", file=f"im{n}.jpg", reason=reason)
        for n, reason in enumerate(reasons)
    ]


def test_reasons_are_one_whatever_place_number_or_detail_they_name() -> None:
    refused = _refused(
        "boxes.jsonl, line 5: no photograph has its name",
        "my boxes.jsonl, image cat: no photograph has its name",
        "damaged image: image file is truncated",
        "damaged image: broken data stream",
        "the file is empty",
    )

    assert reasons_of(refused) == (
        "2 no photograph has its name, 2 damaged image, 1 the file is empty"
    )


def test_the_rarest_reasons_are_counted_together() -> None:
    refused = _refused("a", "a", "b", "b", "c", "c", "d", "e: 1")

    assert reasons_of(refused) == "2 a, 2 b, 2 c, 2 for other reasons"
