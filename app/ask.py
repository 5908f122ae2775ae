"""`semvlp ask`: texts about photographs, as a command."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semvlp.addresses import default_checkpoint, refuse_missing_checkpoint
from semvlp.errors import ConfigError
from semvlp.extract.images.find import ImageFile, find_images
from semvlp.names import EvalMode
from semvlp.progress import bars, busy

if TYPE_CHECKING:
    from semvlp.app.reply import Reply

OWN, OF_DEMO = Path("runs/finetune-vqa/best"), Path("runs/demo/finetune-vqa/best")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReport:
    """The replies of a checkpoint, in the order of photographs and, for each, of texts."""

    replies: "tuple[tuple[tuple[ImageFile, ...], Reply], ...]"
    page: Path | None

    def values(self) -> dict[str, Any]:
        """Return them as plain values: one reply itself, several as a list under `results`."""
        results = [
            {
                "photo": [str(file) for file in files] if len(files) > 1 else str(files[0]),
                "text": reply.text,
                "answers": [answer._asdict() for answer in reply.answers],
                "mode": reply.mode,
                "regions": sum(map(len, reply.regions)),
            }
            for files, reply in self.replies
        ]
        page = {"page": str(self.page)} if self.page else {}
        return (results[0] if len(results) == 1 else {"results": results}) | page

    def sentence(self) -> str:
        """Write each reply with a bar for each answer."""
        lines = []
        for files, reply in self.replies:
            lines.append(f"{', '.join(map(str, files))}: {reply.text}")
            lines += bars(reply.answers)
        if self.page:
            lines.append(f"Open {self.page} in a browser.")
        return "\n".join(lines)


def ask(
    words: Sequence[str],
    *,
    checkpoint: Path | str | None,
    mode: EvalMode,
    top: int,
    page: Path | None,
    device: str,
    detector: str | None,
) -> AskReport:
    """Answer each text about each photograph, or, with a checkpoint for pairs, about two.

    Args:
        words: photographs (files, or a folder of them) and then texts.

    Raises:
        ConfigError: no photograph or no text, or no checkpoint where none is named.
        InputError: a photograph that cannot be read.
    """
    photos = [Path(word) for word in takewhile(_is_there, words)]
    texts = list(words[len(photos) :])
    if not photos or not texts:
        raise ConfigError(
            'give photographs that are there and then texts, such as `semvlp ask photo.jpg "what '
            f'is it?"`; got {", ".join(map(repr, words)) or "nothing"}'
        )
    files = [file for path in photos for file in _images(path)]
    checkpoint = checkpoint or default_checkpoint("vqa", own=OWN, of_demo=OF_DEMO)
    refuse_missing_checkpoint(checkpoint, "--checkpoint")
    with busy("loading torch"):
        from semvlp.app.assistant import load
        from semvlp.app.pages import write_answers
    assistant = load(checkpoint, mode=mode, device=device, detector=detector)
    together = assistant.photos_per_text > 1
    groups = [tuple(files)] if together else [(file,) for file in files]
    replies = []
    for group in groups:
        # Each photograph is looked at once, whatever the number of texts.
        seen = [assistant.regions(file) for file in group]
        replies += [(group, assistant.reply(seen, text, top=top)) for text in texts]
    if page:
        write_answers(page, replies)
    return AskReport(replies=tuple(replies), page=page)


def _is_there(word: str) -> bool:
    # A question may be longer than any file name, for which Path.exists raises.
    return os.path.exists(word)


def _images(path: Path) -> list[ImageFile]:
    return find_images(path) if path.is_dir() else [ImageFile(path.stem, path)]
