"""`semvlp eval` and `semvlp score`: leaderboard files and their scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from semvlp.addresses import refuse_missing_checkpoint
from semvlp.atomic import refuse_inputs
from semvlp.commands.console import Command, Result, reported
from semvlp.commands.options import (
    EXISTING,
    PATH,
    allow_http_option,
    annotations_option,
    choice,
    columns_option,
    device_option,
    other_regions_option,
    overwrite_option,
    task_option,
)
from semvlp.names import EVAL_MODES, PRECISIONS


@click.command("eval", cls=Command)
@task_option
@click.option("--checkpoint", type=PATH, help="runs/finetune-TASK/best unless given.")
@annotations_option
@columns_option
@click.option("--shards", help="Region features of the images.")
@click.option(
    "--split", help="Name in the leaderboard file; the annotation file's own unless given."
)
@choice("--mode", *EVAL_MODES)
@device_option
@choice("--precision", *PRECISIONS, default="fp32", help="Of the encoder.")
@click.option("--batch-size", type=click.IntRange(1), default=64)
@click.option(
    "--shortlist",
    type=click.IntRange(1),
    metavar="N",
    help="Retrieval: compare only the N likeliest by the detector's labels.",
)
@click.option("--images", type=EXISTING, help="The photographs, to be shown in the report.")
@click.option(
    "--explain",
    type=click.IntRange(1),
    metavar="N",
    help="Write explain.html: N examples with what their words and regions attend to.",
)
@other_regions_option
@click.option("--out", type=PATH, help="runs/eval-TASK unless given.")
@allow_http_option
@overwrite_option
def evaluate(
    task: str,
    checkpoint: Path | None,
    annotations: Sequence[Path],
    columns: Mapping[str, str],
    shards: str | None,
    split: str | None,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> Result:
    """Write the leaderboard file of a task, and its scores where the split has labels."""
    from semvlp.eval.files.inputs import eval_inputs
    from semvlp.eval.tasks.table import load_task
    from semvlp.progress import busy
    from semvlp.shards.open import local_store

    checkpoint = checkpoint or Path(f"runs/finetune-{task}/best")
    out = out or Path(f"runs/eval-{task}")
    refuse_inputs(out, checkpoint, shards, options["images"], *annotations)
    refuse_missing_checkpoint(checkpoint, "--checkpoint")
    store = local_store(shards) if shards else None
    given = eval_inputs(checkpoint, annotations=annotations, shards=store, split=split)
    refuse_inputs(out, given.shards, *given.annotations, *given.train)
    loaded = load_task(task).suited_to(given.annotations, columns or given.columns)
    loaded.file_name(given.split)  # at once what would be refused in the end
    with busy("loading torch"):
        from semvlp.eval import evaluate as scorer
    return reported(
        scorer.evaluate(
            loaded,
            checkpoint,
            given.annotations,
            given.shards,
            out,
            scorer.EvalOptions(
                split=given.split,
                train=given.train,
                existing="replace" if overwrite else "keep",
                **options,
            ),
        )
    )


@click.command(cls=Command)
@task_option
@annotations_option
@columns_option
@click.option("--split", default="test", help="Part of a file that holds several (Karpathy).")
@click.argument("predictions", type=EXISTING)
def score(
    task: str,
    annotations: Sequence[Path],
    columns: Mapping[str, str],
    predictions: Path,
    split: str,
) -> Result:
    """Score a leaderboard file that anyone made."""
    from semvlp.eval.eval_report import readable
    from semvlp.eval.score_table import score as score_file
    from semvlp.eval.tasks.table import load_task

    suited = load_task(task).suited_to(annotations, columns)
    scores = score_file(suited, annotations, predictions, split=split)
    return Result(scores, readable(scores))
