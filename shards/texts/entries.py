"""What a file of texts says of images, one by one."""

from dataclasses import dataclass

from semvlp.shards.record import Question


@dataclass(frozen=True, slots=True)
class Captioned:
    """One caption of an image."""

    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about an image."""

    image: str
    question: Question


@dataclass(frozen=True, slots=True)
class Answered:
    """The soft answers of a question that stands in another file."""

    question_id: str | int
    answers: dict[str, float]


Entry = Captioned | Asked | Answered


def is_empty(entry: Entry) -> bool:
    """Tell whether an entry says nothing."""
    match entry:
        case Captioned(_, caption):
            return not caption
        case Asked(_, question):
            return not question.question
    return False


def is_whole(entry: Entry) -> bool:
    """Tell whether it can be written: JSON may spell half of a character, UTF-8 cannot."""
    match entry:
        case Captioned(_, caption):
            texts = [caption]
        case Asked(_, question):
            texts = [question.question, str(question.question_id), *question.answers]
        case Answered(question_id, answers):
            texts = [str(question_id), *answers]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True
