"""Captions and questions are read from the official files, which are told apart by structure."""

import gzip
import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import pytest

from semvlp.errors import InputError
from semvlp.shards.record import Question, Texts
from semvlp.shards.texts.texts import read_matched, read_texts, soft_answers


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def questions_file(path: Path) -> Path:
    entries = [
        {"image_id": 9, "question": "Is it ripe?", "question_id": 9000},
        {"image_id": 9, "question": "How many?", "question_id": 9001},
    ]
    return write(path, {"info": {}, "data_subtype": "train2014", "questions": entries})


def annotations_file(path: Path) -> Path:
    people = ["yes"] * 7 + ["no"] * 2 + ["maybe"]
    answers = [{"answer": answer, "answer_id": n} for n, answer in enumerate(people, 1)]
    entry = {"image_id": 9, "question_id": 9000, "answers": answers, "answer_type": "yes/no"}
    return write(path, {"info": {}, "annotations": [entry]})


def test_soft_answers_follow_the_vqa_rule() -> None:
    people = ["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d"]
    assert soft_answers(people) == {"a": 1.0, "b": 0.9, "c": 0.6, "d": 0.3}
    assert soft_answers([]) == {}


def image_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_captions_in_image_tars(tmp_path: Path) -> None:
    members = {
        "0001.jpg": b"\xff\xd8",
        "0001.json": b'{"caption": "A hill.", "width": 5}',
        "0001.txt": b"A hill.\n",
        "a/0002.json": b'{"captions": ["One.", "Two."], "caption": null}',
        "0003.json": b'{"status": "failed"}',
        "0004.json": b'{"captions": "a dog"}',
    }
    texts = read_texts([image_tar(tmp_path / "set.tar", members)])
    assert texts == {
        "0001": Texts(captions=("A hill.",)),
        "0002": Texts(captions=("One.", "Two.")),
        "0004": Texts(captions=("a dog",)),
    }


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff"])
def test_a_damaged_member_of_an_image_tar_is_named(tmp_path: Path, data: bytes) -> None:
    path = image_tar(tmp_path / "set.tar", {"0001.json": data})
    with pytest.raises(InputError, match=r"set\.tar, member 0001\.json"):
        read_texts([path])


@pytest.mark.parametrize("name", ["\\ud800", "a dog \\udfff"])
def test_half_a_character_costs_its_text_alone(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON can spell it, and UTF-8, in which texts are stored, cannot."""
    lines = (
        f'{{"image_id": "a", "captions": ["{name}", "a cat"]}}',
        f'{{"image_id": "b", "questions": [{{"question": "is it?", "answers": {{"{name}": 1}}}}]}}',
        f'{{"image_id": "c", "questions": [{{"question": "{name}"}}, {{"question": "who?"}}]}}',
    )
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    texts = read_texts([tmp_path / "texts.jsonl"])
    assert texts == {
        "a": Texts(captions=("a cat",)),
        "c": Texts(questions=(Question(question="who?"),)),
    }
    assert "texts.jsonl: left out 3 texts with half a character" in caplog.text


def test_a_real_cc12m_shard(real_data: Path) -> None:
    texts = read_texts([real_data / "cc12m" / "cc12m-train-0000.tar"])
    assert len(texts) == 32
    assert texts["000000003"].captions == ("Red Square is a city square in Moscow, Russia.",)


@pytest.mark.parametrize("annotations_first", [False, True])
def test_vqa_files_come_in_any_order(tmp_path: Path, annotations_first: bool) -> None:
    paths = [questions_file(tmp_path / "q.json"), annotations_file(tmp_path / "a.json")]
    texts = read_texts(paths[::-1] if annotations_first else paths)
    first = Question(
        question="Is it ripe?", answers={"yes": 1.0, "no": 0.6, "maybe": 0.3}, question_id=9000
    )
    second = Question(question="How many?", answers={}, question_id=9001)
    assert texts == {"9": Texts(questions=(first, second))}


def test_vqa_questions_without_annotations_have_no_answers(tmp_path: Path) -> None:
    texts = read_texts([questions_file(tmp_path / "q.json")])
    assert [question.answers for question in texts["9"].questions] == [{}, {}]


def test_vqa_annotations_alone_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json.*give the questions file"):
        read_texts([annotations_file(tmp_path / "a.json")])


def test_coco_captions_take_the_file_name(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": " A plate. \n"},
            {"id": 2, "image_id": 10, "caption": "No image entry."},
        ],
    }
    assert read_texts([write(tmp_path / "c.json", document)]) == {
        "000000000009.jpg": Texts(captions=("A plate.",)),
        "10": Texts(captions=("No image entry.",)),
    }


def test_karpathy_split(tmp_path: Path) -> None:
    sentences = [{"raw": "A dog.", "tokens": ["a", "dog"]}, {"raw": "A pet.", "tokens": []}]
    image = {"filename": "COCO_val2014_000000000042.jpg", "cocoid": 42, "split": "test"}
    document = {"images": [{**image, "sentences": sentences}], "dataset": "coco"}
    texts = read_texts([write(tmp_path / "dataset_coco.json", document)])
    assert texts == {"COCO_val2014_000000000042.jpg": Texts(captions=("A dog.", "A pet."))}


def test_gqa_with_and_without_answers(tmp_path: Path) -> None:
    document = {
        "07333408": {"imageId": "2375429", "question": "What is on the wall?", "answer": "pipe"},
        "07333409": {"imageId": "n12", "question": "Is it red?"},
    }
    texts = read_texts([write(tmp_path / "g.json", document)])
    assert texts["2375429"].questions[0].answers == {"pipe": 1.0}
    assert texts["2375429"].questions[0].question_id == "07333408"
    assert texts["n12"].questions[0].answers == {}


def test_visual_genome_answers_are_spelt_like_the_other_tasks(tmp_path: Path) -> None:
    qas = [{"qa_id": 5, "image_id": 1, "question": "What colour is it?", "answer": "Green."}]
    texts = read_texts([write(tmp_path / "qa.json", [{"id": 1, "qas": qas}])])
    expected = Question(question="What colour is it?", answers={"green": 1.0}, question_id=5)
    assert texts == {"1": Texts(questions=(expected,))}


def test_tab_lines_with_flickr_caption_numbers(tmp_path: Path) -> None:
    lines = "1000.jpg#0\tTwo men .\r\n1000.jpg#1\tA\ttab .\n\nb\tOne dog .\n"
    texts = read_texts([write(tmp_path / "results.token", lines)])
    assert texts == {
        "1000.jpg": Texts(captions=("Two men .", "A\ttab .")),
        "b": Texts(captions=("One dog .",)),
    }


@pytest.mark.parametrize("count", [1, 2])
def test_json_lines(tmp_path: Path, count: int) -> None:
    rows: list[dict[str, Any]] = [
        {"image_id": 3, "questions": [{"question": "Red?", "answers": {"yes": 1, "no": 0.3}}]},
        {"image_id": "b", "captions": ["One.", "Two."]},
    ]
    path = write(tmp_path / "t.jsonl", "\n".join(json.dumps(row) for row in rows[:count]) + "\n")
    texts = read_texts([path])
    assert texts["3"].questions == (Question(question="Red?", answers={"yes": 1.0, "no": 0.3}),)
    assert ("b" in texts) == (count == 2)


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress("\ufeffa\tA dog.\n".encode()))
    assert read_texts([path]) == {"a": Texts(captions=("A dog.",))}


def test_texts_of_several_files_are_gathered_in_file_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "1", "a\tOne.\n"), write(tmp_path / "2", "a\tTwo.\nb\tThree.\n")]
    assert read_texts(paths)["a"].captions == ("One.", "Two.")


def test_empty_texts_are_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "t", "a\t \na\tA dog.\n")
    with caplog.at_level(logging.WARNING):
        assert read_texts([path])["a"].captions == ("A dog.",)
    assert "left out 1 empty texts" in caplog.text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"images": [], "annotations": [{"bbox": []}]}', "keys images, annotations"),
        ('[{"sentence": "x", "label": "true"}]', "sentence"),
        ("one word a line\n", "one word a line"),
        ("", "it is empty"),
        ("[]", "it is empty"),
        ('["a\\tA dog."]', "a list whose first entry"),
        ('[{"annotations": [{"image_id": 1, "caption": "x"}]}]', "a list whose first entry"),
        ('[{"qas": [{"question": "?", "answer": "x"}]}]', "'image_id' must be"),
        ('[{"image_id": 1, "captions": []}, 3]', "entry 2: must be an object"),
        ('{"questions": [{"question"', "damaged"),
        ('{"image_id": 1, "captions": []}\n{"image_id"', ":2: must be a JSON object"),
    ],
)
def test_an_unknown_structure_names_the_file(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"odd\.json.*{problem}"):
        read_texts([write(tmp_path / "odd.json", content)])


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    good = {"image_id": 1, "caption": "x"}
    path = write(tmp_path / "c.json", {"annotations": [good, {"image_id": 2}]})
    with pytest.raises(InputError, match=r"c\.json: annotation 2: 'caption' .*COCO captions"):
        read_texts([path])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"image_id": 1, "captions": ["x"]}', "", '{"captions": []}'], "'image_id' must be"),
        (['{"image_id": 1, "captions": ["x"]}', "", '{"image_id": 1, "captions": [3]}'], "got 3"),
        (["a\tA dog.", "", "one word a line"], "an id, a tab and a text"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, lines: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=rf"odd\.txt:3: .*{problem}"):
        read_texts([write(tmp_path / "odd.txt", "\n".join(lines))])


def test_a_file_of_another_task_is_named(tmp_path: Path) -> None:
    line = {"identifier": "dev-1-0-1", "sentence": "Two dogs.", "label": "True"}
    with pytest.raises(InputError, match=r"odd\.json: must be one of.*it is NLVR2 JSON lines"):
        read_texts([write(tmp_path / "odd.json", line)])


@pytest.mark.parametrize("score", [1.5, -0.1, "NaN"])
def test_scores_outside_0_to_1_are_refused(tmp_path: Path, score: float | str) -> None:
    answers = f'{{"image_id": 1, "questions": [{{"question": "?", "answers": {{"a": {score}}}}}]}}'
    with pytest.raises(InputError, match=r"0\.\.1"):
        read_texts([write(tmp_path / "t.jsonl", answers)])


def test_spellings_of_one_image_are_merged(tmp_path: Path) -> None:
    lines = [
        {"image_id": "9", "questions": [{"question": "Is it?"}]},
        {"image_id": "77", "captions": ["Lost."]},
        {"image_id": "000000000009.jpg", "captions": ["A plate.", "Two."]},
        {"image_id": 9, "captions": ["Three."]},
    ]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines)))
    ids = ["x", "COCO_train2014_000000000009"]
    matched, unmatched = read_matched([path], ids)
    # Name by name, those with captions as their first captions come.
    captions = ("A plate.", "Two.", "Three.")
    expected = Texts(captions=captions, questions=(Question(question="Is it?"),))
    with matched:
        assert dict(matched) == {"COCO_train2014_000000000009": expected}
        assert ("x" in matched, matched.get("x"), len(matched)) == (False, None, 1)
    assert unmatched == ["77"]


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    lines = [{"image_id": number, "captions": ["A \U0001f415.", ""]} for number in range(3)]
    paths = [
        write(tmp_path / "t.jsonl", "\n\n".join(map(json.dumps, lines))),
        write(tmp_path / "t.tsv", "0\tA dog.\r\n\n1\tA\u2028cat."),
    ]
    zipped = tmp_path / "t.jsonl.gz"
    zipped.write_bytes(gzip.compress(paths[0].read_bytes()))
    assert (
        read_texts([zipped, paths[1]])
        == read_texts(paths)
        == {
            "0": Texts(captions=("A \U0001f415.", "A dog.")),
            "1": Texts(captions=("A \U0001f415.", "A\u2028cat.")),
            "2": Texts(captions=("A \U0001f415.",)),
        }
    )
    # A file of one line is one value and no line.
    assert read_texts([write(tmp_path / "one.jsonl", json.dumps(lines[0]))]) == {
        "0": Texts(captions=("A \U0001f415.",))
    }


def test_the_last_answers_of_a_question_count(tmp_path: Path) -> None:
    asked = [{"question_id": number, "image_id": 1, "question": "?"} for number in (5, "5", 6)]
    answers = [{"question_id": 5, "answers": [{"answer": answer}]} for answer in ("no", "yes")]
    texts = read_texts(
        [
            write(tmp_path / "a.json", {"annotations": answers}),
            write(tmp_path / "q.json", {"questions": asked}),
        ]
    )
    assert [question.answers for question in texts["1"].questions] == [{"yes": 0.3}, {}, {}]


def test_real_coco_files(real_data: Path) -> None:
    names = ("captions.json", "vqa_annotations.json", "vqa_questions.json")
    image_ids = [path.stem for path in (real_data / "coco").rglob("*.jpg")]
    matched, unmatched = read_matched([real_data / "coco" / name for name in names], image_ids)
    assert sum(len(own.captions) for own in matched.values()) == 2441
    questions = [question for own in matched.values() for question in own.questions]
    assert (len(questions), list(unmatched)) == (39, [])
    assert all(question.answers for question in questions)
    matched.close()


def test_real_vqa_files_agree_with_the_most_frequent_answer(real_data: Path) -> None:
    folder = real_data / "vqa_v2"
    texts = read_texts([folder / "questions_8977.json.gz", folder / "annotations_8977.json.gz"])
    with gzip.open(folder / "annotations_8977.json.gz", "rt") as file:
        annotations = json.load(file)["annotations"]
    frequent = {entry["question_id"]: entry["multiple_choice_answer"] for entry in annotations}
    questions = [question for own in texts.values() for question in own.questions]
    assert len(questions) == len(frequent) == 8977
    for question in questions:
        best = frequent[question.question_id]  # type: ignore[index]
        assert question.answers[best] == max(question.answers.values())


def test_real_gqa_files(real_data: Path) -> None:
    texts = read_texts(sorted((real_data / "gqa_ood").glob("*.json")))
    questions = [question for own in texts.values() for question in own.questions]
    assert len(questions) == 2796
    assert all(list(question.answers.values()) == [1.0] for question in questions)
