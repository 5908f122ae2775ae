"""What is found where images are looked for: ids, order, lists, tars."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from semvlp.errors import InputError
from semvlp.extract.images.file import as_begun
from semvlp.extract.images.find import ImageFile, Refused, find_images, images_by_id, load
from semvlp.extract.images.kinds import TAKEN_SINCE_0_2
from semvlp.shards.record import key_of


def touch(path: Path) -> Path:
    """An image file too small to spend time on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def ids(images: list[ImageFile]) -> list[str]:
    return [image.image_id for image in images]


def test_a_directory_is_searched_recursively_and_sorted_by_id(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpg", "a.jpeg", "c.d/e.webp", ".hidden/x.jpg", "b/._2.png"):
        touch(tmp_path / name) if name.count("._") == 0 else (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "notes.txt").write_text("not an image")
    found = find_images(tmp_path)
    assert [str(image.path.relative_to(tmp_path)) for image in found] == [
        "b/10.jpg",
        "b/2.PNG",
        "a.jpeg",
        "c.d/e.webp",
    ]
    assert ids(found) == ["10", "2", "a", "e"]


def test_the_order_of_a_list_does_not_matter(tmp_path: Path) -> None:
    names = ["c.jpg", "10.jpg", "b.jpg", "2.jpg"]
    for number, order in enumerate((names, names[::-1])):
        (tmp_path / f"{number}.txt").write_text("\n".join(order))
        (tmp_path / f"{number}.json").write_text(json.dumps(order))
        for kind in ("txt", "json"):
            assert ids(find_images(tmp_path / f"{number}.{kind}")) == ["10", "2", "b", "c"]


def test_images_and_tars_side_by_side_are_one_clear_error(tmp_path: Path) -> None:
    path = touch(tmp_path / "preview" / "a.png")
    tar = tar_of(tmp_path / "train-0.tar", ["b.png"])
    with pytest.raises(InputError) as error:
        find_images(tmp_path)
    for part in (str(path), str(tar), f"'{tmp_path / '*.tar'}'"):
        assert part in str(error.value)
    assert ids(find_images(tmp_path / "*.tar")) == ["b"]
    assert ids(find_images(tmp_path / "preview")) == ["a"]


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "x.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "cycle").symlink_to(tmp_path / "images")
    assert ids(find_images(tmp_path / "images")) == ["x"]


def test_names_become_keys_of_their_own(tmp_path: Path) -> None:
    names = ["IMG 1", "IMG_1", "photo.v2", "photo_v2", "фото", "写真", "plain-1_a", "a" * 81]
    for name in names:
        touch(tmp_path / f"{name}.png")
    images = {image.path.stem: image for image in find_images(tmp_path)}
    assert len({image.image_id for image in images.values()}) == len(names)
    assert all(image.image_id == key_of(name) for name, image in images.items())
    assert {n for n, image in images.items() if image.name} == {*names[::2], "写真", "a" * 81} - {
        "plain-1_a"
    }
    assert images["IMG 1"].image_id.startswith("IMG_1-")


def test_a_name_that_is_no_utf_8_is_a_legal_key(tmp_path: Path) -> None:
    touch(tmp_path / "plain.png")
    try:
        os.rename(os.fsencode(tmp_path / "plain.png"), os.fsencode(tmp_path) + b"/ok\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (found,) = find_images(tmp_path)
    assert found.image_id.startswith("ok_-")
    assert load(found).shape == (8, 8, 3)


def test_two_images_of_one_id_are_one_error_before_any_work(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/x.png", "c/y.1.jpg", "d/y.1.png", "fine.jpg"):
        touch(tmp_path / name)
    with pytest.raises(InputError) as error:
        find_images(tmp_path)
    message = str(error.value)
    assert "2 repeat one" in message
    assert f"x: {tmp_path / 'a/x.jpg'}, {tmp_path / 'b/x.png'}" in message
    assert f"{key_of('y.1')}: {tmp_path / 'c/y.1.jpg'}, {tmp_path / 'd/y.1.png'}" in message
    assert "JSON object of ids and paths" in message


def test_a_text_list_names_files_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.jpg")
    (tmp_path / "list.txt").write_text("images/a.jpg\n\nimages/gone.jpg\n")
    found = find_images(tmp_path / "list.txt")
    assert ids(found) == ["a", "gone"]
    assert load(found[0]).shape == (8, 8, 3)
    with pytest.raises(Refused, match="No such file"):
        load(found[1])


def test_an_image_of_a_kind_that_not_every_pillow_reads_is_no_exception(tmp_path: Path) -> None:
    """Read here, it repeats the id as any other does; where it is not, its line has its own id."""
    for name in ("x.avif", "x.jpg"):
        touch(tmp_path / name)
    if ".avif" in TAKEN_SINCE_0_2:
        with pytest.raises(InputError, match=r"1 repeat one:\n  x: .*x\.avif, .*x\.jpg\nRename"):
            find_images(tmp_path, others=True)
    else:
        assert len({image.image_id for image in find_images(tmp_path, others=True)}) == 2


def test_a_json_list_and_a_json_object(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.jpg")
    (tmp_path / "list.json").write_text(json.dumps(["a.jpg"]))
    (tmp_path / "object.json").write_text(json.dumps({"00007": "a.jpg", "00003": str(path)}))
    assert find_images(tmp_path / "list.json") == [ImageFile("a", path)]
    assert find_images(tmp_path / "object.json") == [
        ImageFile("00003", path),
        ImageFile("00007", path),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "1.jpg", "a": "2.jpg"}', "1 repeat one"),
        ('{"images": [{"id": 1}]}', "must be a list of paths or an object"),
        ("3", "must be a list of paths or an object"),
        ("[", "not JSON"),
        ("[]", "no images there"),
    ],
)
def test_a_wrong_json_list_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=message):
        find_images(tmp_path / "list.json")


def tar_of(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for index, name in enumerate(names):
            data = io.BytesIO()
            Image.new("RGB", (16, 16), (index, 0, 0)).save(data, "PNG")
            member = tarfile.TarInfo(name)
            member.size = data.tell()
            data.seek(0)
            tar.addfile(member, data)
    return path


def test_members_of_a_tar_are_read_in_place(tmp_path: Path) -> None:
    names = ["000.png", "000.json", "../escape.png", "/absolute.jpg", "d/x.y.png"]
    tar = tar_of(tmp_path / "a.tar", names)
    before = sorted(tmp_path.rglob("*"))
    found = find_images(tar)
    assert ids(found) == ["000", "absolute", "escape", key_of("x.y")]
    assert [int(load(image)[0, 0, 0]) for image in found] == [0, 3, 2, 4]
    assert str(found[3]) == f"{tar}:d/x.y.png"
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escape.png").exists()


def test_a_link_in_a_tar_is_the_file_it_stands_for(tmp_path: Path) -> None:
    """`tar` itself writes a hard link for a file that it has stored already."""
    folder = touch(tmp_path / "d" / "first.png").parent
    os.link(folder / "first.png", folder / "hard.png")
    (folder / "soft.png").symlink_to("first.png")
    (folder / "gone.png").symlink_to("../elsewhere/x.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("first", "hard", "soft", "gone"):
            tar.add(folder / f"{name}.png", f"./d/{name}.png")
        assert tar.getmember("./d/hard.png").islnk()
    found = {image.image_id: image for image in find_images(tmp_path / "a.tar")}
    assert list(found) == ["first", "gone", "hard", "soft"]
    expected = (folder / "first.png").read_bytes()
    assert [found[name].read() for name in ("first", "hard", "soft")] == [expected] * 3
    with pytest.raises(Refused, match=r"a link to \.\./elsewhere/x\.png, which its tar does not"):
        load(found["gone"])


def test_several_tars_by_pattern_or_directory(tmp_path: Path) -> None:
    tar_of(tmp_path / "train-0.tar", ["a.png"])
    tar_of(tmp_path / "train-1.tar", ["b.png"])
    assert ids(find_images(tmp_path / "train-*.tar")) == ["a", "b"]
    assert ids(find_images(tmp_path)) == ["a", "b"]
    tar_of(tmp_path / "train-2.tar", ["a.png"])
    with pytest.raises(InputError, match=r"train-0\.tar:a\.png, .*train-2\.tar:a\.png"):
        find_images(tmp_path)


@pytest.mark.parametrize("damage", ["header", "truncated header", "truncated payload"])
def test_a_damaged_tar_is_never_taken_for_a_short_one(tmp_path: Path, damage: str) -> None:
    """The standard reader ends silently at a bad header, as if the rest were not there."""
    tar = tar_of(tmp_path / "a.tar", ["a.png", "b.png", "c.png"])
    data = bytearray(tar.read_bytes())
    second = find_images(tar)[1].offset - 512
    if damage == "header":
        data[second] ^= 1
    else:
        del data[second + (100 if damage == "truncated header" else 520) :]
    tar.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar"):
        find_images(tar)
    # Where images can be refused, the whole ones are kept and one line stands for the rest.
    first, rest = find_images(tar, others=True)
    assert (first.image_id, rest.other) == ("a", True)
    assert rest.path == tar
    assert rest.unread.endswith("is lost: copy the file again")


def test_a_compressed_tar_says_what_is_needed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(touch(tmp_path / "x.png"), "x.png")
    with pytest.raises(InputError, match="not a readable, uncompressed tar"):
        find_images(tmp_path / "a.tar")


def test_one_image_is_a_source_too(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.png")
    assert find_images(path) == [ImageFile("a", path)]
    assert find_images(tmp_path / "*.png") == [ImageFile("a", path)]


def test_nothing_found_says_what_is_possible(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("no images")
    for source in (tmp_path, tmp_path / "missing", tmp_path / "missing-*.tar"):
        with pytest.raises(InputError, match=r"no images there; give a directory of \."):
            find_images(source)
    with pytest.raises(InputError, match=r"a directory, a \.txt or \.json list, or a \.tar"):
        find_images(tmp_path / "readme.md")


def test_any_id_of_a_json_object_is_taken(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"a.b": "1.jpg", "": "2.jpg"}))
    assert {image.image_id for image in find_images(tmp_path / "list.json")} == {
        key_of("a.b"),
        key_of(""),
    }


def test_images_of_other_kinds_are_told_on_demand(tmp_path: Path) -> None:
    """In folders and tars; each has an id that no photograph beside it has."""
    jpeg = touch(tmp_path / "d" / "x.jpg").read_bytes()
    others = {"x.heic": b"", "logo.svg": b"<svg/>", "shot": jpeg, "LICENSE": b"words", "n.txt": b""}
    for name, data in others.items():
        (tmp_path / "d" / name).write_bytes(data)
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    for source in (tmp_path / "d", tmp_path / "d.tar"):
        assert ids(find_images(source)) == ["x"]
        images = {image.image_id: image for image in find_images(source, others=True)}
        assert len(images) == 4
        with pytest.raises(Refused, match="SVG is none of the formats"):
            images["logo"].read()
        with pytest.raises(Refused, match="JPEG in a file without an extension"):
            images["shot"].read()
        assert sum("HEIC" in image.unread for image in images.values()) == 1


def test_a_folder_of_other_kinds_alone_says_which(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(InputError, match=r"no images there; .*a\.heic: HEIC is none of"):
        find_images(tmp_path, others=True)


def test_what_version_0_1_began_keeps_its_ids(tmp_path: Path) -> None:
    for name in ("IMG 1.png", "b.png", "é.png", "new.jfif"):
        touch(tmp_path / name) if name != "new.jfif" else (tmp_path / name).write_bytes(b"x")
    (tmp_path / "logo.svg").write_bytes(b"<svg/>")
    files = find_images(tmp_path, others=True)
    former = as_begun(files, ("IMG_1", "_", "b"))
    assert ids(former) == ["IMG_1", "_", "b"]
    assert former[0].name == "IMG 1"
    assert as_begun(files, ()) == as_begun(files, ids(files)) == files
    assert images_by_id(tmp_path)["IMG_1"].path == tmp_path / "IMG 1.png"
