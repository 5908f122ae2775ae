"""Answers as VQA compares them, and the score of one answer among several people's.

GT-Vision-Lab/VQA PythonEvaluationTools/vqaEvaluation/vqaEval.py at a013f00 (March 2021).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from math import fsum

PEOPLE = 10

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The evaluator hands `re.UNICODE`, which is 32, to the parameter that limits replacements.
_PERIODS_REMOVED = 32

_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = frozenset(("a", "an", "the"))
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""


def vqa_score(answer: str, human_answers: Sequence[str]) -> float:
    """Return the official accuracy in 0..1 of one answer among the people's answers."""
    spelled = compared_spelling(human_answers)(answer)
    return answer_credits(human_answers).get(spelled, 0.0)


def answer_credits(human_answers: Sequence[str]) -> dict[str, float]:
    """Return the official accuracy in 0..1 of all that people answered, as it is compared.

    Each person in turn is left out, and an answer is right to the degree of three of the others
    giving it. Of fewer than ten people each stands for several, as in OK-VQA, where five were
    asked.
    """
    counts = Counter(map(compared_spelling(human_answers), human_answers))
    return {answer: _credit(matches, len(human_answers)) for answer, matches in counts.items()}


def compared_spelling(human_answers: Sequence[str]) -> Callable[[str], str]:
    """Return how answers are spelled to be compared: as written if all agree, else normalised.

    One who was asked alone is compared by the normal form.
    """
    alike = len(set(map(trim, human_answers))) == 1 < len(human_answers)
    return trim if alike else normalise


def soft_target(human_answers: Sequence[str]) -> dict[str, float]:
    """Return the official score of every answer that has any: of ten people 0.3, 0.6, 0.9 or 1."""
    credits, spelled = answer_credits(human_answers), compared_spelling(human_answers)
    # What is normal already may change when the evaluator normalises it.
    return {answer: round(credits.get(spelled(answer), 0.0), 6) for answer in credits}


@cache
def _credit(matches: int, people: int) -> float:
    given = matches * max(1.0, PEOPLE / people)
    others = [given - 1] * matches + [given] * (people - matches)
    return fsum(min(1.0, count / 3) for count in others) / people


@lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    """Return an answer as it is compared: no punctuation or articles, digits, lower case."""
    return _digits_and_articles(_without_punctuation(trim(answer)))


def is_plain(answer: str) -> bool:
    """Tell whether an answer has no punctuation and something left when it is compared."""
    return bool(normalise(answer)) and _without_punctuation(answer) == answer


def trim(answer: str) -> str:
    """Return an answer without line ends, tabs and outer blanks."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for sign in _PUNCTUATION:
        beside_blank = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if beside_blank or in_number else " ")
    return _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)


def _digits_and_articles(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def _restored_contractions() -> dict[str, str]:
    """Return the right spelling for every one that lacks one apostrophe."""
    table = {
        right[:at] + right[at + 1 :]: right
        for right in _CONTRACTIONS.split()
        for at, sign in enumerate(right)
        if sign == "'"
    }
    # The one entry of the official table that goes the wrong way.
    return table | {"somebody'd": "somebodyd"}


_RESTORED = _restored_contractions()
