"""Whether a checkpoint, a task and shards belong together."""

from collections.abc import Sequence
from pathlib import Path

from semvlp.errors import InputError
from semvlp.eval.network import Network
from semvlp.eval.task import Example, Task
from semvlp.shards.stores.store import Store


def check_network(
    network: Network, task: Task, examples: Sequence[Example], store: Store, checkpoint: Path
) -> None:
    """Check that the network of `checkpoint` has the task's head and labels, the store's features.

    Raises:
        InputError: it has others; says which and what to give.
    """
    config, labels = network.model.config, set(network.labels)
    if config.task_head != task.head:
        raise InputError(
            f"task {task.name} needs the {task.head} head, but {checkpoint} has the "
            f"{config.task_head} head; give a checkpoint fine-tuned on {task.name}"
        )
    if config.region_feature_size != store.manifest.feature_size:
        raise InputError(
            f"{checkpoint} was trained on region features of size {config.region_feature_size}, "
            f"but those of {store.path} have {store.manifest.feature_size}; give the shards of "
            "the detector it was trained with"
        )
    known = {label for example in examples for label in example.target}
    if known and not known & labels:
        raise InputError(
            f"{checkpoint} answers {_few(labels)}, but the right answers of task {task.name} are "
            f"{_few(known)}; give a checkpoint fine-tuned on {task.name}"
        )


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
