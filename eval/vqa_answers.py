"""The official VQA answer processing and the score of one answer among ten.

Source: GT-Vision-Lab/VQA PythonEvaluationTools/vqaEvaluation/vqaEval.py at a013f00 (March 2021).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import fsum

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


@lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    """One answer as the evaluator compares it: no punctuation or articles, digits, lower case."""
    return _digits_and_articles(_without_punctuation(_trim(answer)))


def vqa_score(answer: str, human_answers: Sequence[str]) -> float:
    """Official accuracy in 0..1 of one answer among the people's answers.

    Unanimous people are compared as they wrote; else both sides are normalised. Each person in turn
    is left out, and an answer is right to the degree of three of the others giving it.
    """
    answer, given = _trim(answer), [_trim(human) for human in human_answers]
    if len(set(given)) > 1:
        answer, given = normalise(answer), [normalise(human) for human in given]
    matches = sum(human == answer for human in given)
    others = (matches - (human == answer) for human in given)
    return fsum(min(1.0, count / 3) for count in others) / len(given)


def soft_target(human_answers: Sequence[str]) -> dict[str, float]:
    """The official score of every answer that has any: 0.3, 0.6, 0.9 or 1 where ten answered."""
    given = [_trim(human) for human in human_answers]
    spelled = given if len(set(given)) == 1 else [normalise(human) for human in given]
    return {answer: round(vqa_score(answer, given), 6) for answer in dict.fromkeys(spelled)}


def _trim(answer: str) -> str:
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
    """Every spelling that lacks one apostrophe -> the right one."""
    table = {
        right[:at] + right[at + 1 :]: right
        for right in _CONTRACTIONS.split()
        for at, sign in enumerate(right)
        if sign == "'"
    }
    # The one entry of the official table that goes the wrong way.
    return table | {"somebody'd": "somebodyd"}


_RESTORED = _restored_contractions()
