"""A view of a data set of 100 regions is the data set its preset would have written."""

from pathlib import Path
from typing import get_args

import pytest

from semvlp.commands.shards_cli import VIEWS as OFFERED
from semvlp.errors import ConfigError
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.extract.views import write_view
from semvlp.names import VIEWS, StoreFormat
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.maintenance.verify import verify
from semvlp.shards.open import open_store

Found = dict[str, set[tuple[bytes, ...]]]


@pytest.fixture(scope="module")
def stored(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("views") / "top_100"
    extracted(drawn, out, "top_100")
    return out


def extracted(images: Path, out: Path, preset: str) -> None:
    extract(images, out, ExtractSettings(detector="demo", preset=preset, samples_per_shard=3))


def found(path: Path) -> Found:
    """The regions of each image by what no preset changes."""
    with open_store(path) as store:
        samples = [store.sample(index).regions for index in range(len(store))]
    return {
        regions.image_id: {
            tuple(array.tobytes() for array in row)
            for row in zip(regions.proposals, regions.features, strict=True)
        }
        for regions in samples
    }


@pytest.mark.parametrize("format", get_args(StoreFormat))
@pytest.mark.parametrize("preset", VIEWS)
def test_a_view_holds_what_its_preset_chooses(
    drawn: Path, stored: Path, tmp_path: Path, preset: str, format: StoreFormat
) -> None:
    extracted(drawn, tmp_path / "chosen", preset)
    manifest = write_view(stored, tmp_path / "view", preset=preset, to=format)
    assert found(tmp_path / "view") == found(tmp_path / "chosen")
    assert verify(tmp_path / "view") == []
    assert manifest.store == format
    assert manifest.extractor["view"] == preset
    profiles = {read_manifest(path).profile for path in (stored, tmp_path / "chosen")}
    assert manifest.profile not in profiles


def test_texts_and_refusals_stay(drawn: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("0.png", "1.png"):
        (images / name).write_bytes((drawn / name).read_bytes())
    (images / "2.png").write_bytes(b"no picture")
    texts = tmp_path / "texts.json"
    texts.write_text(
        '{"images": [{"id": 0, "file_name": "0.png"}],'
        ' "annotations": [{"image_id": 0, "id": 5, "caption": "two shapes"}]}'
    )
    settings = ExtractSettings(detector="demo", preset="top_100", texts=(texts,), max_bad=0.5)
    extract(images, tmp_path / "all", settings)
    manifest = write_view(tmp_path / "all", tmp_path / "view", preset="butd_36", to="tar")
    assert manifest.refused == read_manifest(tmp_path / "all").refused
    assert [refusal.image_id for refusal in manifest.refused] == ["2"]
    with open_store(tmp_path / "view") as store:
        assert store.texts(0).captions == ("two shapes",)
        assert len(store.sample(0).regions) == 36


def test_only_what_top_100_stored_can_be_cut(drawn: Path, stored: Path, tmp_path: Path) -> None:
    extracted(drawn, tmp_path / "other", "vinvl_nms2")
    with pytest.raises(ConfigError, match=r"--preset top_100.*other was selected by .*0\.5"):
        write_view(tmp_path / "other", tmp_path / "view", preset="butd_36", to="tar")
    write_view(stored, tmp_path / "view", preset="butd_10_100", to="tar")
    with pytest.raises(ConfigError, match="--preset top_100"):
        write_view(tmp_path / "view", tmp_path / "again", preset="butd_36", to="tar")
    with pytest.raises(ConfigError, match=r"extractor\.view was 'butd_10_100', now 'butd_36'"):
        write_view(stored, tmp_path / "view", preset="butd_36", to="tar")
    with pytest.raises(ConfigError, match="must not be the data set that is read"):
        write_view(stored, stored, preset="butd_36", to="tar", overwrite=True)


def test_the_command_offers_them_all() -> None:
    """From a list of its own, to start without PyTorch."""
    assert OFFERED == VIEWS == ("butd_36", "butd_10_100")
