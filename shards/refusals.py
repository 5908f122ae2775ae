"""refused.jsonl: one line for each image of the plan that is not in the data set, and why."""

import fcntl
import json
import os
from pathlib import Path

from semvlp.errors import ConfigError, InputError
from semvlp.shards.manifest import Refusal
from semvlp.shards.plan import Plan

REFUSED_NAME = "refused.jsonl"


class RefusalLog:
    """The refused images of a data set in work; who holds it open is the only writer there.

    Raises:
        ConfigError: another process is writing this data set.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / REFUSED_NAME
        self._file = self.path.open("a+b")
        try:
            # The lock ends with the process, however that ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"{directory} is being written by another process; "
                "wait for it or name another --out"
            ) from None

    def read(self, plan: Plan) -> dict[int, Refusal]:
        """Refusals by position in the plan; a line torn by a crash is cut off.

        Raises:
            InputError: a line that is damaged or names an image that is not in the plan.
        """
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))
        positions = {image_id: position for position, image_id in enumerate(plan.image_ids)}
        refusals: dict[int, Refusal] = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                position = positions[entry["id"]]
                refusals[position] = Refusal(
                    position=position,
                    image_id=entry["id"],
                    file=entry["file"],
                    reason=entry["reason"],
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.path}, line {number} does not name an image of the plan ({error!r}); "
                    "start anew with --overwrite"
                ) from error
        return refusals

    def append(self, refusal: Refusal) -> None:
        """Add a line and make it survive a crash."""
        entry = {"id": refusal.image_id, "file": refusal.file, "reason": refusal.reason}
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)

    def close(self) -> None:
        """Let another writer in."""
        self._file.close()
