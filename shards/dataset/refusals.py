"""refused.jsonl: one line for each image of the plan that is not in the data set, and why."""

import json
import os
import re
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from semvlp import atomic
from semvlp.atomic import PART_DIR
from semvlp.documents import from_json
from semvlp.errors import InputError, TooManyRefused
from semvlp.shards.dataset.manifest import Manifest, Refusal
from semvlp.shards.dataset.plan import Plan

REFUSED_NAME = "refused.jsonl"
CUT = "; what stands behind it in the file is lost: copy the file again"
"""The end of a reason where nobody knows how many images are lost with this one ..."""
UNLISTED = "; nobody knows what else it named: copy the file again"
"""... or with a list of them."""
_NUMBER = re.compile(r"[0-9]+")
_PLACE = re.compile(r"[^:]+, (entry|image|line|record|row|sample) [^:]+: ")
"""`FILE, line 7: `, at the start of a reason."""


def check_refused(
    out: Path,
    manifest: Manifest,
    max_bad: float,
    *,
    before: Container[str] = (),
    took: str = "",
) -> None:
    """Check that no more than a fraction of the images of a finished data set was refused.

    A file of which only the start was read is more than any fraction but the whole, for nobody
    knows how much of it is lost.

    Args:
        before: images that were refused before and have been told of.
        took: how long it took, in words that follow `finished`.

    Raises:
        TooManyRefused: more was.
    """
    refused = [refusal for refusal in manifest.refused if refusal.image_id not in before]
    written = manifest.counts["samples"]
    total = written + len(refused)
    cut = any(refusal.reason.endswith((CUT, UNLISTED)) for refusal in refused)
    too_many = len(refused) > max_bad * total
    if too_many or (cut and max_bad < 1):
        allowed = [f"--max-bad allows {max_bad:.1%}"] * too_many
        unknown = ["how much more is lost is not known"] * cut
        raise TooManyRefused(
            f"{out} is finished{took} and holds {written} images, but {len(refused)} of {total} "
            f"were refused and {' and '.join(allowed + unknown)} ({reasons_of(refused)}); see "
            f"{out / REFUSED_NAME}"
        )


def reasons_of(refused: Sequence[Refusal], most: int = 3) -> str:
    """Count refusals by their reasons, the most frequent first: `2 damaged image, 1 ...`.

    Reasons that differ in the place that they name first, in numbers, or behind a colon, are one.
    """
    whys = (_PLACE.sub("", refusal.reason, count=1) for refusal in refused)
    starts = [why.partition(":")[0] for why in whys]
    counts = Counter(_NUMBER.sub("N", start) for start in starts)
    example = {_NUMBER.sub("N", start): start for start in reversed(starts)}
    kinds = [
        f"{count} {example[kind] if count == 1 else kind}"
        for kind, count in counts.most_common(most)
    ]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(most))
    return ", ".join(kinds + ([f"{rest} for other reasons"] if rest else []))


class RefusalLog:
    """The refused images of a data set in work; who holds it open is the only writer there.

    Where several processes write, each but the first has a log of its own in `.part/`, which the
    next writer of the whole takes over.

    Raises:
        ConfigError: another process is writing this data set.
    """

    def __init__(self, directory: Path, rank: int = 0) -> None:
        self._directory = directory
        self.path = directory / REFUSED_NAME
        if rank:
            self.path = directory / PART_DIR / f"refused-{rank}.jsonl"
            atomic.make_directory(self.path.parent)
        self._file = self.path.open("a+b", buffering=0)
        atomic.sync_directory(self.path.parent)
        try:
            atomic.hold(self._file.fileno(), directory)
        except BaseException:
            self._file.close()
            raise

    def read(self, plan: Plan) -> dict[int, Refusal]:
        """Read refusals by position in the plan; a line torn by a crash is cut off.

        Raises:
            InputError: a line that is damaged or names an image that is not in the plan.
        """
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))
        return _refusals(self.path, whole, plan)

    def merge_logs(self, plan: Plan) -> None:
        """Add what other processes of an earlier run refused, and remove their logs."""
        known = self.read(plan)
        for path in sorted((self._directory / PART_DIR).glob("refused-*.jsonl")):
            for position, refusal in read_refusals(path, plan).items():
                if position not in known:
                    known[position] = refusal
                    self.append(refusal)
            path.unlink()

    def sort(self, refusals: Sequence[Refusal]) -> None:
        """Put the lines into the order of `refusals`, for a data set that is about to be whole."""
        data = b"".join(map(_line, refusals))
        if self.path.read_bytes() != data:
            # Another file from now on: the lock stays with the old one, which nobody needs.
            atomic.write_bytes(self.path, data)

    def append(self, refusal: Refusal) -> None:
        """Add a line and make it survive a crash."""
        self._file.write(_line(refusal))
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)

    def close(self) -> None:
        """Let another writer in."""
        self._file.close()


def printable(text: str) -> str:
    """Return `text` as UTF-8 can hold it: other bytes of a file's name become `?`, as in `ls`."""
    return text.encode(errors="replace").decode()


def read_refusals(path: Path, plan: Plan) -> dict[int, Refusal]:
    """Read refusals by position in the plan, of a log that another process may be writing.

    Raises:
        InputError: a line that is damaged or names an image that is not in the plan.
    """
    data = path.read_bytes()
    return _refusals(path, data[: data.rfind(b"\n") + 1], plan)


def _refusals(path: Path, lines: bytes, plan: Plan) -> dict[int, Refusal]:
    refusals: dict[int, Refusal] = {}
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            entry = from_json(line)
            position = plan.keys.find(entry["id"])
            if position is None:
                raise KeyError(entry["id"])
            refusals[position] = Refusal(
                position=position,
                image_id=entry["id"],
                file=entry["file"],
                reason=entry["reason"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} does not name an image of the plan ({error!r}); "
                "start anew with --overwrite"
            ) from error
    return refusals


def _line(refusal: Refusal) -> bytes:
    entry = {"id": refusal.image_id, "file": refusal.file, "reason": refusal.reason}
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
