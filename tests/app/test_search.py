"""`semvlp search`: which photographs, how probable, their page, and who can search at all."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semvlp.app.assistant import load
from semvlp.app.search import PhotoSearch
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from semvlp.extract.pipeline import ExtractSettings, extract
from tests.app.conftest import Drawn

TEXT = "a red circle"
Search = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def shards(drawn: Drawn, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn.root / "regions", tmp_path / "regions"))


@pytest.fixture
def search(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Search:
    """(words) -> exit code, the object or the text on stdout, and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, as_json: bool = True) -> tuple[int, Any, str]:
        options = ["--device", "cpu", *["--json"] * as_json]
        code = run(cli, "semvlp", ["search", *map(str, words), *options])
        streams = capsys.readouterr()
        return code, json.loads(streams.out) if as_json else streams.out, streams.err

    return call


@pytest.mark.parametrize("start", ["retrieval", "pre-training"])
def test_it_ranks_every_photograph_as_whole_passes_do(
    drawn: Drawn, shards: Path, start: str
) -> None:
    if start == "retrieval":
        vlp = drawn.assistant("retrieval", mode="two")
    else:
        last = drawn.root / "pretrain" / "last"
        vlp = load(last, mode="two", device="cpu", zero_shot="retrieval")
    with PhotoSearch(vlp, shards) as photos:
        hits = photos.search(TEXT, top=1000)
        assert sorted(hit.id for hit in hits) == sorted(photos.store.image_ids)
        expected = [vlp.match(photos.store.regions(hit.id), [TEXT])[0] for hit in hits]
        assert photos.search(TEXT, top=3) == hits[:3]
    given = [hit.probability for hit in hits]
    np.testing.assert_allclose(given, expected, atol=5e-3)
    assert given == sorted(given, reverse=True)
    assert given[0] > given[-1]


def test_of_many_only_those_are_compared_whose_labels_are_named(drawn: Drawn, shards: Path) -> None:
    vlp = drawn.assistant("retrieval")
    with PhotoSearch(vlp, shards) as photos:
        labels = photos.store.manifest.object_labels
        seen = {
            image_id: {
                labels[index] for index in photos.store.regions(image_id).object_ids.tolist()
            }
            for image_id in photos.store.image_ids
        }
    counts = {label: sum(label in every for every in seen.values()) for label in labels}
    label = min((label for label in labels if counts[label] > 0), key=counts.__getitem__)
    assert counts[label] < len(seen)
    with PhotoSearch(vlp, shards, shortlist=counts[label]) as photos:
        hits = photos.search(f"there is a {label}", top=1000)
    assert {hit.id for hit in hits} == {name for name, every in seen.items() if label in every}


def test_the_regions_of_a_hit_are_those_of_the_store(drawn: Drawn, shards: Path) -> None:
    with PhotoSearch(drawn.assistant("retrieval"), shards) as photos:
        (hit,) = photos.search(TEXT, top=1)
        assert photos.store.regions(hit.id).image_id == hit.id
        assert hit.file is None
        with pytest.raises(InputError, match="no image 'nobody'"):
            photos.store.regions("nobody")
        with pytest.raises(InputError, match="must have words"):
            photos.search(" ")


def test_a_checkpoint_without_a_matching_head_says_what_is_needed(
    drawn: Drawn, shards: Path
) -> None:
    needed = "needs a checkpoint fine-tuned on retrieval.*was fine-tuned on vqa"
    with pytest.raises(ConfigError, match=needed):
        PhotoSearch(drawn.assistant("vqa"), shards)
    assert not (shards / "search").exists()


def test_one_search_is_one_object(search: Search, drawn: Drawn, shards: Path) -> None:
    start = ("--checkpoint", drawn.checkpoint("retrieval"))
    code, report, _ = search(shards, TEXT, *start, "--top", 2, "--images", drawn.world.root)
    assert code == 0
    assert report["text"] == TEXT
    assert report["compared"] == report["photographs"]
    assert Path(report["kept"]).parent == shards / "search"
    assert len(report["hits"]) == 2
    for hit in report["hits"]:
        assert set(hit) == {"id", "name", "file", "probability"}
        assert Path(hit["file"]).stem == hit["id"]
        assert 0 < hit["probability"] < 1


def test_people_see_bars_and_what_was_compared(search: Search, drawn: Drawn, shards: Path) -> None:
    start = ("--checkpoint", drawn.checkpoint("retrieval"), "--top", 3)
    code, text, _ = search(shards, TEXT, *start, as_json=False)
    assert code == 0
    *lines, last = text.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"  \S+ +[\d.]+ % █*", line) for line in lines)
    assert re.match(r"Compared all \d+ photographs in ", last)
    _, text, _ = search(shards, "xyzzy", *start, "--shortlist", 3, as_json=False)
    assert "Compared 3 of" in text
    assert "the text names no label of the detector; --shortlist N compares more" in text


@pytest.mark.parametrize("with_images", [True, False])
def test_the_page_shows_photographs_or_their_regions(
    search: Search, drawn: Drawn, shards: Path, tmp_path: Path, with_images: bool
) -> None:
    start = ("--checkpoint", drawn.checkpoint("retrieval"), "--top", 4, "--page", "page.html")
    images = ("--images", drawn.world.root) if with_images else ()
    code, report, _ = search(shards, "<script>alert(1)</script> circle", *start, *images)
    assert (code, report["page"]) == (0, "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert page.count("<article") == 4
    assert page.count("<image ") == (4 if with_images else 0)
    assert ("<text " in page) is not with_images
    assert "<rect" in page
    assert all(hit["id"] in page for hit in report["hits"])
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "one file, nothing from elsewhere"


def test_what_is_read_or_of_somebody_else_is_no_page(
    search: Search, drawn: Drawn, shards: Path, tmp_path: Path
) -> None:
    start = ("--checkpoint", drawn.checkpoint("retrieval"))
    (tmp_path / "page.html").write_text("somebody's")
    code, error, _ = search(shards, TEXT, *start, "--page", "page.html")
    assert (code, "no page of ours" in error["error"]) == (2, True)
    code, error, _ = search(shards, TEXT, *start, "--page", shards)
    assert (code, "must not be or hold what is read" in error["error"]) == (2, True)


def test_regions_of_another_profile_are_refused(
    search: Search, drawn: Drawn, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    chosen = ExtractSettings(detector="demo", min_regions=2, max_regions=5, device="cpu")
    extract(drawn.world.root / "images", other, chosen)
    start = ("--checkpoint", drawn.checkpoint("retrieval"))
    code, error, _ = search(other, TEXT, *start)
    assert code == 3
    assert "selection.max_regions was 9, now 5" in error["error"]
    assert not (other / "search").exists()
    code, report, _ = search(other, TEXT, *start, "--allow-other-regions")
    assert (code, len(report["hits"])) == (0, 12)


def test_without_a_checkpoint_it_is_that_of_the_demo(
    search: Search, drawn: Drawn, shards: Path, tmp_path: Path
) -> None:
    code, error, _ = search(shards, TEXT)
    assert code == 2
    assert "`semvlp demo` makes the second" in error["error"]
    (tmp_path / "runs" / "demo" / "pretrain").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "pretrain" / "last").symlink_to(drawn.root / "pretrain" / "last")
    code, report, _ = search(shards, TEXT)
    assert (code, len(report["hits"])) == (0, 12)
