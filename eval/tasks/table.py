"""The tasks by the names the command line uses."""

import difflib

from semvlp.errors import ConfigError
from semvlp.eval.task import Task
from semvlp.eval.tasks.gqa import Gqa
from semvlp.eval.tasks.nlvr import Nlvr
from semvlp.eval.tasks.nlvr2 import Nlvr2
from semvlp.eval.tasks.refcoco import RefCoco
from semvlp.eval.tasks.retrieval import Retrieval
from semvlp.eval.tasks.snli_ve import SnliVe
from semvlp.eval.tasks.tabular import Table
from semvlp.eval.tasks.vqa import Vqa

_ALL: tuple[Task, ...] = (
    *(Vqa(), Gqa(), Nlvr2(), Nlvr(), SnliVe(), Retrieval()),
    *(RefCoco(), Table()),
)
TASKS = {task.name: task for task in _ALL}


def load_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: no such task; names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"tasks: {', '.join(TASKS)}"
    raise ConfigError(f"unknown task {name!r}; {hint}")
