"""Trainings in processes of their own, which start at once: what they import is there already."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.ports import free_port

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["semvlp.train.finetune", "semvlp.train.pretrain", "semvlp.eval.tasks.table"]
)
TIMEOUT = 120
Job = Callable[[], object]


def together(size: int, job: Job) -> list[int | None]:
    """Run a job in `size` processes that find each other; returns their exit codes.

    Once one of them has failed, or TIMEOUT seconds have gone, the rest are killed.
    """
    port = free_port()
    ranks = [
        started(
            job,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(size)
    ]
    deadline = time.monotonic() + TIMEOUT
    while any(process.exitcode is None for process in ranks) and time.monotonic() < deadline:
        if any(process.exitcode for process in ranks):
            break  # the others would wait for it, as torchrun knows too
        time.sleep(0.05)
    for process in ranks:
        process.kill()
        process.join()
    return [process.exitcode for process in ranks]


def started(job: Job, **environment: str) -> multiprocessing.process.BaseProcess:
    """A process that does a job and exits with 0, or with the code of its error."""
    process = CONTEXT.Process(target=_run, args=(job, environment))
    process.start()
    return process


def _run(job: Job, environment: dict[str, str]) -> None:
    import torch

    from semvlp.errors import SemVLPError
    from semvlp.train import finetune, pretrain

    os.environ.update(environment)
    torch.set_num_threads(1)
    # Drawing curves takes longer than the trainings here.
    pretrain.write_report = finetune.write_report = lambda run: run  # type: ignore[assignment]
    try:
        job()
    except SemVLPError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def pretraining(shards: Path, out: Path, overrides: Sequence[str]) -> Job:
    """A pre-training as a job."""
    return partial(_pretrain, shards, out, list(overrides))


def finetuning(
    task: str, annotations: Path, shards: Path, out: Path, overrides: Sequence[str]
) -> Job:
    """A fine-tuning from nothing, validated on what it is trained on, as a job."""
    return partial(_finetune, task, annotations, shards, out, list(overrides))


def stopping_before(step: int, job: Job) -> Job:
    """The job, whose processes vanish before that step."""
    return partial(_stop_before, step, job)


def _pretrain(shards: Path, out: Path, overrides: list[str]) -> None:
    from semvlp import settings
    from semvlp.train.config import PretrainConfig
    from semvlp.train.pretrain import pretrain

    pretrain([shards], out, settings.load(PretrainConfig, None, overrides))


def _finetune(task: str, annotations: Path, shards: Path, out: Path, overrides: list[str]) -> None:
    from semvlp import settings
    from semvlp.eval.tasks.table import load_task
    from semvlp.train.config import FinetuneConfig
    from semvlp.train.finetune import finetune

    config = settings.load(FinetuneConfig, None, overrides)
    finetune(load_task(task), [annotations], shards, None, out, config, valid=[annotations])


def _stop_before(step: int, job: Job) -> None:
    from semvlp.train import loop

    rate = loop.learning_rate

    def vanish(now: int, *others: object) -> float:
        if now == step:
            os._exit(0)
        return rate(now, *others)  # type: ignore[arg-type]

    loop.learning_rate = vanish
    job()
