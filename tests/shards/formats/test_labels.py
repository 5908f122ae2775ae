"""Names for what files number, from text files and from the package."""

from pathlib import Path
from typing import Any

import pytest

from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import ConfigError, InputError
from semvlp.shards.dataset.manifest import read_manifest
from semvlp.shards.formats.import_export import import_format
from semvlp.shards.formats.labels import VISUAL_GENOME, read_labels
from tests.shards.formats.odd_values import FORMATS, base64_of


def files(folder: Path, name: str = "lxmert-tsv", **changes: Any) -> Path:
    """Two images of a format, the second one changed."""
    fields, _, write = FORMATS[name]
    (folder / "set").mkdir()
    write(folder / "set", {"a": fields, "b": {**fields, **changes}})
    return folder / "set"


def test_the_package_has_the_names_of_visual_genome(real_data: Path) -> None:
    objects, attributes = read_labels([VISUAL_GENOME])
    assert (len(objects), len(attributes)) == (1600, 400)
    for names, kind in ((objects, "objects"), (attributes, "attributes")):
        given = (real_data / "vocab" / f"vg_{kind}_vocab.txt").read_text(encoding="utf-8")
        assert list(names) == given.splitlines()


def test_an_import_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("shards", "import", files(tmp_path), tmp_path / "out", "--from", "lxmert-tsv")
    assert run(cli, "semvlp", [*map(str, command), "--labels", VISUAL_GENOME]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.object_labels[0], manifest.attribute_labels[0]) == read_labels(
        [VISUAL_GENOME]
    )[0][:1] + read_labels([VISUAL_GENOME])[1][:1]
    # Other names are another data set.
    assert run(cli, "semvlp", list(map(str, command))) == 2
    assert "object_labels" in capsys.readouterr().err


def test_a_label_without_a_name_costs_its_image(tmp_path: Path) -> None:
    names = tmp_path / "objects.txt"
    names.write_text("\n".join("abcde"))
    source = files(tmp_path, objects_id=base64_of([3, 5], "<i8"))
    manifest = import_format(
        source, tmp_path / "out", from_="lxmert-tsv", to="tar", labels=[str(names)]
    )
    assert manifest.object_labels == tuple("abcde")
    assert [refusal.image_id for refusal in manifest.refused] == ["b"]
    assert "object ids must be 0..4, got 3..5" in manifest.refused[0].reason


def test_files_that_name_their_classes_need_none(tmp_path: Path) -> None:
    source = files(tmp_path, "vinvl-tsv")
    with pytest.raises(ConfigError, match="names its classes itself"):
        import_format(source, tmp_path / "out", from_="vinvl-tsv", to="tar", labels=[VISUAL_GENOME])
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        import_format(source, tmp_path / "out", from_="vinvl-tsv", to="tar", labels=["nowhere"])
    with pytest.raises(ConfigError, match="one file of object classes and one of attributes"):
        read_labels(["a", "b", "c"])
