"""credits.jsonl: read back as it was written, damage named."""

from pathlib import Path

import pytest

from semvlp.errors import InputError
from semvlp.eval.credits import Credits
from semvlp.eval.files.credits_file import read_credits, write_credits


def test_credits_are_read_back(tmp_path: Path) -> None:
    accuracy = Credits([1.0, 0.3], [("a",), ("b",)], [7, "8"])
    consistency = Credits([0.0], [("dev", "1")], [("dev", "1")])
    written = {
        "single": {"accuracy": accuracy, "consistency": consistency},
        "two": {"accuracy": accuracy, "rsum": Credits([5.0], [("a",)], [7], 6.0)},
        "both": {"grounding": Credits([2.0], [("a",)], [7], 2.5)},
    }
    write_credits(tmp_path / "credits.jsonl", written)
    read = read_credits(tmp_path / "credits.jsonl")

    def plain(credits: Credits) -> object:
        rows = zip(credits.values, credits.clusters, credits.units, strict=True)
        return [*rows], credits.most

    assert {mode: {name: plain(c) for name, c in s.items()} for mode, s in read.items()} == {
        mode: {name: plain(c) for name, c in s.items()} for mode, s in written.items()
    }
    # One line a unit, whatever the number of modes and scores.
    assert len((tmp_path / "credits.jsonl").read_text().splitlines()) == 4


HEAD = '{"most": {"accuracy": 1}}\n'
WHOLE = '{"unit": 1, "cluster": ["a"], "two": {"accuracy": 1}}\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]\n", 1),
        ('{"most": 3}\n', 1),
        (HEAD + '{"unit": 1}\n', 2),
        (HEAD + WHOLE.replace("1}", '"x"}'), 2),
        (HEAD + WHOLE.replace('["a"]', "{}"), 2),
        (HEAD + '{"unit": 1, "cluster": ["a"], "two": 3}\n', 2),
        (HEAD + WHOLE + "not JSON\n", 3),
    ],
)
def test_damage_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "credits.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"credits\.jsonl, line {line}: must hold the credits"):
        read_credits(path)
