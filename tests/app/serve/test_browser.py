"""The page of `semvlp serve` in a real browser: pointer, keyboard, phone, dark mode, silence."""

import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
import uvicorn

from semvlp.app.serve.album import Album
from semvlp.app.serve.desk import Desk
from semvlp.app.serve.server import application
from semvlp.shards.stores.store import Store
from tests.app.conftest import Drawn, Finder

EVIL = "<img src=x onerror=alert(1)>"
PATIENCE = 60_000  # milliseconds, of a machine that has other things to do


@pytest.fixture(scope="module")
def address(drawn: Drawn) -> Iterator[str]:
    """Serve two checkpoints and a store; one label of its classes is evil."""
    album = Album.opened(drawn.root / "regions", drawn.world.images("train"))
    vqa = drawn.assistant("vqa")
    objects = tuple(EVIL for _ in vqa.eyes.detector.object_labels)
    vqa.eyes.detector.object_labels = objects
    assistants = {EVIL: vqa, "pairs": drawn.assistant("nlvr2"), "c": drawn.assistant("retrieval")}
    desk = Desk(assistants, album, Finder(list(album.store.image_ids)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application(desk), lifespan="off", ws="none", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
    album.close()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open the page; afterwards the console must be empty and every request local."""
    context = browser.new_context(**getattr(request, "param", {}))
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(address)
    page.wait_for_selector("#photos button")
    yield page
    expected = [text for text in said if "422" in text]
    assert said == expected, said
    here = urlsplit(address).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith("blob:")} == {here}
    context.close()


def ask(page: Any, photo: Path | dict[str, Any], text: str) -> None:
    page.set_input_files("#slots input", photo)
    page.fill("#text", text)
    page.click("#ask")
    page.wait_for_selector("#answers li")


def shares(page: Any, selector: str) -> list[float]:
    """Return how strongly each of some elements is lit."""
    strengths: list[float] = page.eval_on_selector_all(
        selector, "all => all.map(one => Number(one.style.getPropertyValue('--share')))"
    )
    return strengths


def test_pointing_at_a_word_lights_regions_and_at_a_region_words(page: Any, drawn: Drawn) -> None:
    ask(page, drawn.photos[0], "what is it?")
    answers = page.locator("#answers li")
    assert answers.count() == 2
    assert "%" in answers.first.inner_text()
    assert page.locator("#words button").all_inner_texts() == ["what", "is", "it", "?"]
    rest = shares(page, "rect")
    assert max(rest) == 1
    assert max(shares(page, "#words button")) == 0
    page.hover("#words button >> nth=2")
    assert shares(page, "#words button") == [0, 0, 1, 0]
    assert shares(page, "rect") != rest
    page.mouse.move(2, 2)
    assert shares(page, "rect") == rest
    box = page.locator("rect:visible").last
    box.hover()
    assert "lit" in box.get_attribute("class")
    assert max(shares(page, "#words button")) == 1
    assert EVIL in page.locator(".caption").inner_text()
    assert page.locator(".stage img").get_attribute("alt").endswith(drawn.photos[0].name)


def test_what_came_in_as_text_is_never_run(page: Any, drawn: Drawn) -> None:
    """The fixture fails on a dialog, on a request and on an error that any of it causes."""
    photo = {
        "name": f"{EVIL}.png",
        "mimeType": "image/png",
        "buffer": drawn.photos[0].read_bytes(),
    }
    ask(page, photo, f"{EVIL} <script>alert(2)</script>?")
    page.locator("rect:visible").last.hover()
    assert page.locator("#checkpoint option").first.inner_text() == f"{EVIL} (vqa)"
    assert page.locator("script").count() == 1
    assert page.locator("img[src=x]").count() == 0
    page.set_input_files("#slots input", {**photo, "buffer": b"no photograph"})
    page.click("#ask")
    page.wait_for_selector("#error:not(:empty)")
    assert f"{EVIL}.png" in page.locator("#error").inner_text()


def test_another_pass_layer_or_head_is_shown_at_once(page: Any, drawn: Drawn) -> None:
    ask(page, drawn.photos[0], "what is it?")
    seen = [shares(page, "rect")]
    choices = [
        lambda: page.check("input[value=two]"),
        lambda: page.select_option("#layer", index=1),
        lambda: page.select_option("#head", index=1),
    ]
    for choose in choices:
        with page.expect_response("**/ask") as answer:
            choose()
        answer.value.finished()
        page.locator("#status", has_text="By ").wait_for()
        seen.append(shares(page, "rect"))
    assert all(one != other for one, other in pairwise(seen))
    assert "two-stream" in page.locator("#status").inner_text()


def test_boxes_that_the_detector_hardly_believes_in_can_be_hidden(
    page: Any, drawn: Drawn, store: Store
) -> None:
    doubtful = min(
        drawn.photos,
        key=lambda path: store.sample(store.index_of(path.stem)).regions.object_conf.min(),
    )
    ask(page, doubtful, "what is it?")
    counts = []
    for least in ("0", "10", "100"):
        page.fill("#least", least)
        assert page.locator("#least-text").inner_text() == f"{least} %"
        counts.append(page.locator("rect:visible").count())
    assert counts[0] == page.locator("rect").count()
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


def test_it_can_be_used_by_keyboard_alone(page: Any) -> None:
    def focused() -> str:
        name: str = page.evaluate("document.activeElement.id || document.activeElement.tagName")
        return name

    def tab_to(name: str) -> None:
        for _ in range(80):
            if focused() == name:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {name}, it ends at {focused()}")

    tab_to("checkpoint")
    tab_to("text")
    page.locator("#photos button").first.focus()
    page.keyboard.press("Enter")
    assert focused() == "text"
    page.keyboard.type("what is it?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers li")
    page.evaluate("document.getElementById('checkpoint').focus()")
    tab_to("rect")
    assert page.locator("rect:focus").get_attribute("aria-label")
    first = page.locator("rect:focus").get_attribute("aria-label"), shares(page, "#words button")
    page.keyboard.press("ArrowRight")
    second = page.locator("rect:focus").get_attribute("aria-label"), shares(page, "#words button")
    assert first != second
    page.keyboard.press("Tab")
    assert focused() != "rect"
    page.evaluate("document.getElementById('ask').focus()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "what"
    assert shares(page, "#words button")[0] == 1


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 360, "height": 740}, "has_touch": True}], indirect=True
)
def test_a_phone_shows_it_without_scrolling_sideways(page: Any, drawn: Drawn) -> None:
    ask(page, drawn.photos[0], "what is it that stands in the middle of the photograph?")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.tap("#words button >> nth=1")
    assert shares(page, "#words button")[1] == 1
    for one in page.locator("button:visible, select:visible").all()[:12]:
        assert one.bounding_box()["height"] >= 24


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_dark_mode_is_dark(page: Any) -> None:
    ground, ink = page.evaluate(
        "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
    )
    assert ground == "rgb(20, 22, 27)"
    assert ink == "rgb(232, 234, 239)"


def test_pairs_captions_and_the_store(page: Any, drawn: Drawn) -> None:
    page.select_option("#checkpoint", "pairs")
    assert page.locator(".slot").count() == 2
    for index in range(2):
        page.click(f"#photos button >> nth={index}")
    page.fill("#text", "both images show a circle")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers li")
    assert page.locator(".stage svg").count() == 2
    page.fill("#search-text", "a circle")
    page.keyboard.press("Enter")
    page.locator("#store-status", has_text="best").wait_for()
    assert "50.0 %" in page.locator("#photos button").first.inner_text()
    page.select_option("#checkpoint", "c")
    page.fill("#text", "a circle\ntwo red squares")
    page.click("#ask")
    page.wait_for_selector("#answers li")
    assert page.locator("#answers li").count() == 2
    page.locator("#answers button").last.click()
    page.locator("#status", has_text="By ").wait_for()


def test_what_is_missing_is_said_and_everything_has_a_name(page: Any) -> None:
    page.fill("#text", "what is it?")
    page.click("#ask")
    assert "Photograph is missing" in page.locator("#error").inner_text()
    assert page.locator("#error").get_attribute("role") == "alert"
    assert page.locator("#answers").get_attribute("aria-live") == "polite"
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea, button, img")]
        .filter((one) => !(one.labels?.length || one.textContent.trim() || one.alt !== undefined))
        .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_two_browsers_ask_at_once_and_a_closed_tab_ends_nothing(
    page: Any, browser: Any, address: str, drawn: Drawn
) -> None:
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#photos button")
    for one in (page, other):
        one.set_input_files("#slots input", drawn.photos[0])
        one.fill("#text", "what is it?")
    for one in (other, page):
        one.evaluate("document.getElementById('ask').click()")
    other.close()
    page.wait_for_selector("#answers li")
