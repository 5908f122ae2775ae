"""The page that shows what was found: self-contained, complete, safe, with or without images."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semvlp.errors import ConfigError
from semvlp.extract.preview import write_preview
from semvlp.shards.dataset.plan import Plan
from semvlp.shards.open import open_store
from semvlp.shards.record import NO_ATTRIBUTE, Question, Regions, Sample, Texts
from semvlp.shards.stores.store import Store
from semvlp.shards.writer import open_writer

CONFIDENCE = np.array([0.9, 0.4, 0.05], np.float16)
BOXES = np.array([[10, 20, 110, 220], [0, 0, 400, 300], [50, 60, 52, 62]], np.float32)


class Page(HTMLParser):
    """Counts the elements, keeps what they load, and reads the JSON that the script draws from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []
        self.json: dict[str, list[Any]] = {"regions": [], "picture": []}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inside = dict(attrs).get("class") or "" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.json:
            self.json[self.inside].append(json.loads(data))
        self.inside = ""

    @property
    def photographs(self) -> list[str]:
        return [picture["uri"] for picture in self.json["picture"] if picture["uri"]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five images of 400 x 300 pixels; the third has no attributes and an unusual label."""
    plan = Plan(
        image_ids=tuple(f"im{number}" for number in range(5)),
        extractor={"detector": "by hand"},
        object_labels=("cube", "<script>alert(1)</script>"),
        attribute_labels=("red",),
        feature_size=2,
        samples_per_shard=10,
    )
    with open_writer(tmp_path / "shards", plan, format="tar") as writer:
        for number, image_id in enumerate(plan.image_ids):
            regions = Regions(
                image_id=image_id,
                width=400,
                height=300,
                boxes=BOXES,
                proposals=BOXES,
                features=np.zeros((3, 2), np.float16),
                object_ids=np.array([0, 1 if number == 2 else 0, 0], np.int16),
                object_conf=CONFIDENCE,
                attribute_ids=np.full(3, NO_ATTRIBUTE if number == 2 else 0, np.int16),
                attribute_conf=np.full(3, 0.25, np.float16),
                profile=plan.profile,
            )
            texts = Texts(
                captions=(f"caption of {image_id} & <b>",),
                questions=(Question(question="How many?", answers={"1": 0.3, "two": 1.0}),),
            )
            writer.write(Sample(key=image_id, regions=regions, texts=texts))
        writer.finish()
    return open_store(tmp_path / "shards")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Photographs of im0 to im3; im1 is larger than the page, im3 is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in {"im0": (400, 300), "im1": (2000, 1500), "im2": (400, 300)}.items():
        Image.new("RGB", size, "orange").save(folder / f"{name}.png")
    (folder / "im3.png").write_bytes(b"no image")
    return folder


def page_of(store: Store, tmp_path: Path, **options: object) -> str:
    out = tmp_path / "deep" / "page.html"
    assert write_preview(store, out, **options) == out
    return out.read_text(encoding="utf-8")


def test_everything_found_is_on_the_page(store: Store, images: Path, tmp_path: Path) -> None:
    text = page_of(store, tmp_path, images=images, count=5)
    page = Page(text)
    assert page.tags["article"] == 5
    assert [len(regions) for regions in page.json["regions"]] == [3] * 5
    first = page.json["regions"][0][0]
    assert [first[key] for key in ("x", "y", "w", "h")] == [10, 20, 100, 200]
    assert (first["object"], first["attribute"], first["confidence"]) == ("cube", "red", 0.9)
    assert first["share"] == pytest.approx(100 * 200 / (400 * 300), abs=1e-4)
    assert page.json["regions"][2][0]["attribute"] == ""
    assert page.json["picture"][0]["view"] == "0 0 400 300"
    assert "caption of im4 &amp; &lt;b&gt;" in text
    assert 'How many? <span class="answer">two</span>' in text
    assert store.manifest.profile in text


def test_the_page_needs_nothing_else(store: Store, images: Path, tmp_path: Path) -> None:
    text = page_of(store, tmp_path, images=images, count=5)
    page = Page(text)
    assert not page.links
    assert len(page.photographs) == 3
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in page.photographs)
    addresses = set(re.findall(r"https?://[^\"]*|@import|url\(", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a language, not an address"


def test_images_are_embedded_upright_and_not_wider_than_the_page(
    store: Store, images: Path, tmp_path: Path
) -> None:
    sizes = []
    for uri in Page(page_of(store, tmp_path, images=images, count=5)).photographs:
        data = base64.b64decode(uri.partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            sizes.append(image.size)
            assert np.abs(np.array(image)[0, 0].astype(int) - (255, 165, 0)).max() < 10
    assert sizes == [(400, 300), (900, 675), (400, 300)]


def test_a_missing_or_damaged_image_leaves_its_boxes(
    store: Store, images: Path, tmp_path: Path
) -> None:
    text = page_of(store, tmp_path, images=images, count=5)
    assert len(Page(text).photographs) == 3
    assert "im3.png: not an image in one of the formats" in text
    assert "3 regions, no image file" in text
    without = Page(page_of(store, tmp_path, images=None, count=5))
    assert not without.photographs
    assert [len(regions) for regions in without.json["regions"]] == [3] * 5


def test_labels_are_text_never_markup(store: Store, tmp_path: Path) -> None:
    text = page_of(store, tmp_path, images=None, count=5)
    assert "<script>alert" not in text
    page = Page(text)
    assert page.json["regions"][2][1]["object"] == "<script>alert(1)</script>"
    assert page.tags["script"] == 2 * 5 + 1


def test_a_browser_draws_what_is_near_the_window(
    store: Store, images: Path, tmp_path: Path, browser: Any
) -> None:
    page_of(store, tmp_path, images=images, count=5)
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(60_000)
    page.goto((tmp_path / "deep" / "page.html").as_uri())
    first, last = page.locator("article").first, page.locator("article").last
    first.locator("rect").first.wait_for(state="attached")
    assert first.locator("rect").count() == 3 * 2, "each box is drawn with its dark edge"
    assert last.locator("rect").count() == 0, "far below the window"
    shown = page.content()
    assert "<b>red cube</b> <i>0.90</i>" in shown
    assert "16.7%" in shown, "area of the first box"
    assert "5 of 5 images, 15 of 15 regions shown" in shown
    assert "<script>alert" not in shown
    last.scroll_into_view_if_needed()
    last.locator("rect").first.wait_for(state="attached")
    page.close()


def test_the_same_seed_draws_the_same_images(store: Store, tmp_path: Path) -> None:
    def drawn(seed: int) -> list[str]:
        text = page_of(store, tmp_path, images=None, count=2, seed=seed)
        return re.findall(r"<h2>(\w+)</h2>", text)

    pages = [drawn(seed) for seed in range(5)]
    assert drawn(0) == pages[0]
    assert len(set(map(tuple, pages))) > 1
    assert all(len(set(page)) == 2 and page == sorted(page) for page in pages)


def test_more_than_there_are_shows_all(store: Store, tmp_path: Path) -> None:
    assert Page(page_of(store, tmp_path, images=None, count=50)).tags["article"] == 5


def test_no_images_wanted_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 image, got 0"):
        page_of(store, tmp_path, images=None, count=0)


def test_the_slider_starts_where_labels_are_readable(store: Store, tmp_path: Path) -> None:
    """Three regions an image are few: all are shown."""
    assert 'value="0.0"' in page_of(store, tmp_path, images=None, count=5)


def test_many_regions_start_with_the_most_confident(tmp_path: Path) -> None:
    plan = Plan(
        image_ids=("a",),
        extractor={},
        object_labels=("cube",),
        attribute_labels=(),
        feature_size=1,
        samples_per_shard=1,
    )
    confidence = np.linspace(0.99, 0.0, 100, dtype=np.float16)
    regions = Regions(
        image_id="a",
        width=100,
        height=100,
        boxes=np.tile(np.array([[0, 0, 9, 9]], np.float32), (100, 1)),
        proposals=np.zeros((100, 4), np.float32),
        features=np.zeros((100, 1), np.float16),
        object_ids=np.zeros(100, np.int16),
        object_conf=confidence,
        attribute_ids=np.full(100, NO_ATTRIBUTE, np.int16),
        attribute_conf=np.zeros(100, np.float16),
        profile=plan.profile,
    )
    with open_writer(tmp_path / "shards", plan, format="lmdb") as writer:
        writer.write(Sample(key="a", regions=regions))
        writer.finish()
    with open_store(tmp_path / "shards") as store:
        text = page_of(store, tmp_path, images=None, count=1)
    assert 'value="0.9"' in text
