"""The provenance of a leaderboard file: everything its answers depend on, and one hash of it."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

import semvlp
from semvlp.eval.files.inputs import left_out_of
from semvlp.eval.network import WEIGHTS_NAME, Network
from semvlp.eval.task import Submission
from semvlp.shards.dataset.hashes import file_sha256
from semvlp.shards.stores.store import Store

VOCABULARY_NAME = "tokenizer.json"


def sources(
    network: Network,
    checkpoint: Path,
    store: Store,
    annotations: Sequence[Path],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that goes into an evaluation; `settings` are plain values: task, split, ..."""
    return {
        **settings,
        "zero_shot": network.zero_shot,
        "checkpoint": {
            "path": str(checkpoint),
            "sha256": file_sha256(checkpoint / WEIGHTS_NAME),
            "vocabulary_sha256": file_sha256(checkpoint / VOCABULARY_NAME),
            **asdict(network.limits),
            **({"trained_without": left_out} if (left_out := left_out_of(checkpoint)) else {}),
        },
        "annotations": [{"path": str(path), "sha256": file_sha256(path)} for path in annotations],
        "shards": {"path": str(store.path), "profile": store.manifest.profile},
    }


def key_of(sources: Mapping[str, Any]) -> str:
    """Return a hash of everything the answers depend on; where files lie does not count."""
    text = json.dumps(_without_paths(sources), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def provenance(sources: Mapping[str, Any], submission: Submission) -> dict[str, Any]:
    """Return the content of `provenance.json`."""
    return {
        **sources,
        "versions": {
            "semvlp": semvlp.__version__,
            "revision": revision(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "submission": {
            "file": submission.path.name,
            "count": submission.count,
            "bytes": submission.size,
            "sha256": submission.sha256,
        },
    }


def revision() -> str | None:
    """Return the commit of the code, with `-dirty` if changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_paths(entry) for name, entry in value.items() if name != "path"}
    return [_without_paths(entry) for entry in value] if isinstance(value, list) else value
