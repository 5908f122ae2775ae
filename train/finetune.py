"""Fine-tuning: one loop for every task, the task passed in."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from semvlp.atomic import locked
from semvlp.distributed import World
from semvlp.errors import ConfigError, InputError
from semvlp.eval.files.inputs import LEFT_OUT
from semvlp.eval.limits import Limits
from semvlp.eval.lookup import with_images
from semvlp.eval.network import Network, check_regions
from semvlp.eval.predict import PredictOptions, answers_by_mode
from semvlp.eval.task import Example, Stop, Task
from semvlp.model.layers.heads import label_loss
from semvlp.model.outputs import TaskOutput
from semvlp.model.packing import Mode
from semvlp.model.semvlp import SemVLPForTask
from semvlp.model.tokenizer import load_tokenizer, tell_unknown
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig, RetrievalConfig
from semvlp.train.data.examples import tell_answerable, tell_remembered, tell_unanswerable
from semvlp.train.data.finetuning import FinetuningBatches, TaskTargets
from semvlp.train.data.hard_negatives import mine_hard_negative
from semvlp.train.data.source import tell_small
from semvlp.train.distributed import training_world
from semvlp.train.initial_model import init_name, task_model
from semvlp.train.loop import Job, Loop
from semvlp.train.optim import layer_scale
from semvlp.train.run.checkpoint import load_model
from semvlp.train.run.folder import open_run, settle_precision
from semvlp.train.run.going_on import from_input, source_of
from semvlp.train.run.report import RunReport, write_report
from semvlp.train.step import MicroBatch
from semvlp.train.train_config import FinetuneTrainConfig

log = logging.getLogger(__name__)

Validate = Callable[[Stop], Mapping[str, float]]


def finetune(
    task: Task,
    annotations: Sequence[Path],
    shards: Path,
    init: Path | str | None,
    out: Path,
    config: FinetuneConfig,
    *,
    valid: Sequence[Path] = (),
    resume: bool = True,
    overwrite: bool = False,
    allow_other_regions: bool = False,
    from_: Path | None = None,
    skip_missing: bool = False,
) -> RunReport:
    """Fine-tune on `annotations` of `task` and write the run to `out`.

    Args:
        shards: a store that holds every image of `annotations` and `valid`.
        init: a checkpoint of pre-training or of a published family (`model.published`), or its
            name on the Hugging Face Hub; None starts from nothing with `config.model`.
        valid: annotations with labels; their score names the best checkpoint.
        from_: a checkpoint of another fine-tuning to go on from with other settings, instead of
            `init`, see `train.run.going_on`.
        skip_missing: train without the examples whose images the store lacks; those of `valid` must
            all be there.

    Raises:
        ConfigError: settings that do not fit together, or not to the run that is in `out`.
        InputError: annotations without labels or of another task, images that the store lacks, a
            checkpoint that does not fit or was trained on other regions, unless these are allowed.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
    """
    with ExitStack() as stack:
        world = stack.enter_context(training_world(config.train))
        if world.is_first:
            stack.enter_context(locked(out))
        config = settle_precision(config, out, world, overwrite=overwrite)
        _check_split(config.train, world)
        _check_negatives(task, config)
        # Validation has a store of its own: the training one is being read by another thread.
        store, valid_store = (stack.enter_context(open_store(shards)) for _ in range(2))
        labelled = _labelled(task, annotations, "train")
        examples = _present(labelled, store, annotations) if skip_missing else labelled
        left_out = len(labelled) - len(examples)
        if world.is_first:
            tell_small(len(examples), "examples", config.train.batch_size)
        steps = total_steps(config.train, len(examples))
        other = source_of(
            *(from_, SemVLPForTask.__name__, steps, store),
            allow_other_regions=allow_other_regions,
        )
        start = open_run(
            out,
            config,
            _inputs(task, annotations, shards, init, valid)
            | from_input(from_)
            | ({LEFT_OUT: left_out} if left_out else {}),
            world,
            partial(
                task_model,
                *(task, examples, store, init, config),
                allow_other_regions=allow_other_regions,
            ),
            resume=resume,
            overwrite=overwrite,
            source=other,
        )
        if world.is_first:
            stack.callback(write_report, out)
        if start.state.finished:
            report = RunReport(what=_what(task), run=out, steps=start.state.step)
            return replace(report, examples=len(labelled), left_out=left_out)
        model = load_model(SemVLPForTask, start.path)
        check_regions(model.config, start.path, store, allow_other=allow_other_regions)
        tokenizer = load_tokenizer(str(start.path))
        source = FinetuningBatches(
            task, examples, model.config.labels, tokenizer, store, config, world
        )
        if world.is_first:
            tell_answerable(source.num_answerable, len(examples), annotations)
            tell_unknown(tokenizer, (e.text for e in examples), ", ".join(map(str, annotations)))
        validate = validation(
            task, valid, model, tokenizer, valid_store, config, world, trained=examples
        )
        job = _job(task, len(examples), out, config.train, model, tokenizer, source, validate)
        report = Loop(job, start, world).run()
        return replace(report, examples=len(labelled), left_out=left_out)


def _present(examples: list[Example], store: Store, paths: Sequence[Path]) -> list[Example]:
    """Return the examples whose images are there, and tell of the others.

    Raises:
        InputError: none is.
    """
    present = with_images(store, examples)
    told = f"{store.path} lacks the images of {len(examples) - len(present)} of the {len(examples)}"
    if not present:
        raise InputError(f"{told} examples of {', '.join(map(str, paths))}: nothing can be learned")
    if len(present) < len(examples):
        log.warning("%s examples, which are left out", told)
    return present


def _what(task: Task) -> str:
    return f"Fine-tuning {task.name}"


def _job(
    task: Task,
    num_examples: int,
    out: Path,
    config: FinetuneTrainConfig,
    model: SemVLPForTask,
    tokenizer: PreTrainedTokenizerFast,
    source: FinetuningBatches,
    validate: Validate | None,
) -> Job:
    """Describe the run to the loop."""
    return Job(
        what=_what(task),
        run=out,
        config=config,
        steps=total_steps(config, num_examples),
        save_every=config.save_every or steps_per_epoch(config, num_examples),
        weights={"task": 1.0},
        model=model,
        tokenizer=tokenizer,
        loss_module=TaskLoss(model),
        scale_of=partial(
            layer_scale,
            num_layers=model.config.num_hidden_layers,
            layer_decay=config.layer_decay,
            head_lr_multiplier=config.head_lr_multiplier,
        ),
        source=source,
        validate=validate,
        metric=task.metric,
        patience=config.patience,
    )


def steps_per_epoch(config: FinetuneTrainConfig, examples: int) -> int:
    """Count the steps that see every example once, the last one filled up from the next epoch."""
    return math.ceil(examples / config.batch_size)


def total_steps(config: FinetuneTrainConfig, examples: int) -> int:
    """Count the steps of the whole run."""
    return config.steps or max(1, round(config.epochs * examples / config.batch_size))


def validation(
    task: Task,
    annotations: Sequence[Path],
    model: SemVLPForTask,
    tokenizer: PreTrainedTokenizerFast,
    store: Store,
    config: FinetuneConfig,
    world: World,
    *,
    trained: Sequence[Example] = (),
) -> Validate | None:
    """Return a function that scores the model on `annotations`; None where there are none.

    Examples among them that are `trained` on as well are remarked upon.
    """
    if not annotations:
        return None
    examples = _labelled(task, annotations, "val")
    if world.is_first:
        tell_remembered(trained, examples)
        tell_unanswerable(task, examples, model.config.labels, annotations)
    network = Network(
        model=model,
        tokenizer=tokenizer,
        device=str(world.device),
        batch_size=config.train.batch_size,
        limits=Limits(
            max_text_length=config.data.max_text_length, max_regions=config.data.max_regions
        ),
    )
    mode = config.train.validation_mode

    def score(stop: Stop) -> Mapping[str, float]:
        options = PredictOptions(world=world, stop=stop)
        answers = answers_by_mode(network, task, examples, store, mode, options)
        return task.score(examples, answers[mode])

    return score


class TaskLoss(nn.Module):
    """The model and the loss of its task as one module."""

    def __init__(self, model: SemVLPForTask) -> None:
        super().__init__()
        self.model = model

    def forward(self, micro_batch: MicroBatch, mode: Mode) -> dict[str, Tensor]:
        """Sum the loss over the examples of the micro-batch."""
        targets, batch = micro_batch.targets, micro_batch.batch
        assert isinstance(targets, TaskTargets)
        if targets.candidates:
            batch = mine_hard_negative(self.model, targets.candidates, mode)
        output: TaskOutput = self.model(batch, mode)
        exclusive = targets.loss == "cross_entropy"
        weights, scores = targets.weights, targets.scores
        loss = label_loss(output.logits, scores, exclusive=exclusive, weights=weights)
        return {"task": loss}


def _inputs(
    task: Task,
    annotations: Sequence[Path],
    shards: Path,
    init: Path | str | None,
    valid: Sequence[Path],
) -> dict[str, object]:
    """Name what the run reads, by its absolute paths."""
    return {
        "task": task.name,
        "init": init_name(init),
        "annotations": [str(p.absolute()) for p in (*annotations, *task.read_beside(annotations))],
        "valid": [str(p.absolute()) for p in (*valid, *task.read_beside(valid))],
        "shards": str(shards.absolute()),
        **({"columns": dict(task.columns)} if task.columns else {}),
    }


def _labelled(task: Task, paths: Sequence[Path], split: str) -> list[Example]:
    examples = task.read(paths, split=split)
    names = ", ".join(map(str, paths))
    if not examples:
        raise InputError(f"{names}: must hold at least one example of {task.name}, but holds none")
    bare = [example.example_id for example in examples if not example.target]
    if len(bare) == len(examples) or (bare and task.loss == "cross_entropy"):
        raise InputError(
            f"{names}: every example must have a label to train or validate on, but {len(bare)} of "
            f"{len(examples)} have none, first {bare[0]!r}; give a split with labels"
        )
    return examples


def _check_split(config: FinetuneTrainConfig, world: World) -> None:
    pieces = world.size * config.gradient_accumulation_steps
    if config.batch_size % pieces:
        raise ConfigError(
            f"train.batch_size ({config.batch_size}) must be a multiple of {world.size} ranks x "
            f"train.gradient_accumulation_steps = {config.gradient_accumulation_steps}; "
            "change one of them"
        )


def _check_negatives(task: Task, config: FinetuneConfig) -> None:
    negatives, size = config.retrieval.negatives, config.train.batch_size
    if not task.draws_negatives and config.retrieval != RetrievalConfig():
        raise ConfigError(
            "retrieval.* says how the task retrieval is fine-tuned, but the task is "
            f"{task.name}; leave these settings out"
        )
    if negatives != "random" and size < 2:
        raise ConfigError(
            f"retrieval.negatives = {negatives!r} takes wrong pairs from the same step, so "
            f"train.batch_size must be at least 2, but is {size}"
        )
