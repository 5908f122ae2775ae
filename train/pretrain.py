"""Pre-training: one encoder, its steps taking turns between single-stream and two-stream."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from semvlp.atomic import locked
from semvlp.distributed import World, pins_memory
from semvlp.errors import ConfigError
from semvlp.eval.network import check_regions
from semvlp.model.config import SemVLPConfig
from semvlp.model.packing import Mode
from semvlp.model.semvlp import SemVLPForPreTraining
from semvlp.model.tokenizer import load_tokenizer, tell_unknown
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.shards.stream.reader import Reader, exit_if_reader
from semvlp.shards.stream.stream import Stream
from semvlp.train.config import ObjectivesConfig, PretrainConfig
from semvlp.train.data.pretraining import PretrainingCollator
from semvlp.train.data.source import PretrainingBatches, tell_small
from semvlp.train.data.texts import check_texts, most_frequent_answers, read_sample, sentences
from semvlp.train.distributed import training_world
from semvlp.train.initial_model import fresh_config, load_pretrained, make_tokenizer, some_features
from semvlp.train.loop import Job, Loop
from semvlp.train.objectives import Targets, pretraining_losses
from semvlp.train.run.checkpoint import load_model
from semvlp.train.run.damaged import DamageLog
from semvlp.train.run.folder import open_run, settle_precision
from semvlp.train.run.going_on import from_input, source_of
from semvlp.train.run.report import DAMAGED, RunReport, write_report
from semvlp.train.step import MicroBatch

WHAT = "Pre-training"
FOR_A_FIRST_TRY = "`--config tiny` is a network that trains on two CPU cores in minutes"
log = logging.getLogger(__name__)


def pretrain(
    shards: Sequence[Path],
    out: Path,
    config: PretrainConfig,
    *,
    resume: bool = True,
    overwrite: bool = False,
    allow_other_regions: bool = False,
    from_: Path | None = None,
) -> RunReport:
    """Pre-train on the stores `shards` and write the run to `out`.

    A run that was stopped goes on and gives, step for step, the losses it would have given. A step
    is without the images that are damaged, and nothing takes their place; each is a line of
    `damaged.jsonl`, and all are counted in the report.

    Args:
        from_: a checkpoint of another run to go on from with other settings, see
            `train.run.going_on`.

    Raises:
        ConfigError: settings that do not fit together, or not to the run that is in `out`.
        InputError: stores that are of different detectors or without texts, or more than half of
            whose images are damaged; weights to start from that were trained on other regions,
            unless these are allowed.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
    """
    exit_if_reader()
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(path)) for path in shards]
        world = stack.enter_context(training_world(config.train))
        if world.is_first:
            stack.enter_context(locked(out))
        config = settle_precision(config, out, world, overwrite=overwrite)
        if world.is_first:
            tell_small(sum(map(len, stores)), "images", config.images_per_step)
        stream = open_stream(stores, config, world)
        other = source_of(
            *(from_, SemVLPForPreTraining.__name__, config.train.steps, stores[0]),
            allow_other_regions=allow_other_regions,
        )
        start = open_run(
            out,
            config,
            {
                "task": "pretrain",
                "shards": [str(path.absolute()) for path in shards],
                **from_input(from_),
            },
            world,
            lambda: build(stores, config, allow_other_regions=allow_other_regions),
            resume=resume,
            overwrite=overwrite,
            source=other,
        )
        if world.is_first:
            stack.callback(write_report, out)
        images, done = sum(map(len, stores)), start.state.step
        damage = DamageLog(out, world, images=images, done=done)
        if start.state.finished:
            return _with_damage(RunReport(what=WHAT, run=out, steps=done), images, damage)
        model = load_model(SemVLPForPreTraining, start.path)
        check_regions(model.config, start.path, stores[0], allow_other=allow_other_regions)
        tokenizer = load_tokenizer(str(start.path))
        if world.is_first:
            sample = read_sample(stores, tell=True)
            tell_unknown(tokenizer, sentences(sample), "texts to learn from")
        source = PretrainingBatches(
            stack.enter_context(Reader(stream)),
            PretrainingCollator(config, tokenizer, model.config.answers or []),
            workers=config.data.workers,
            pinned=pins_memory(world.device),
        )
        stack.enter_context(source)
        job = _job(out, config, model, tokenizer, source, damage)
        return _with_damage(Loop(job, start, world).run(), images, damage)


def _with_damage(report: RunReport, images: int, damage: DamageLog) -> RunReport:
    return replace(report, examples=images, left_out=len(damage), left_out_are=DAMAGED)


def _job(
    out: Path,
    config: PretrainConfig,
    model: SemVLPForPreTraining,
    tokenizer: PreTrainedTokenizerFast,
    source: PretrainingBatches,
    damage: DamageLog,
) -> Job:
    """Describe the run to the loop."""
    weights = active_weights(config, model.config)
    return Job(
        what=WHAT,
        run=out,
        config=config.train,
        steps=config.train.steps,
        save_every=config.train.save_every,
        weights=weights,
        model=model,
        tokenizer=tokenizer,
        loss_module=PreTrainingLosses(model, weights, config.objectives),
        source=source,
        damage=damage,
        instead="" if config.model.preset == "tiny" else FOR_A_FIRST_TRY,
    )


def build(
    stores: Sequence[Store], config: PretrainConfig, *, allow_other_regions: bool = False
) -> tuple[SemVLPForPreTraining, PreTrainedTokenizerFast]:
    """Make a fresh model for the data: sizes from the manifest, vocabularies from the texts."""
    check_texts(stores)
    sample = list(read_sample(stores))
    tokenizer = make_tokenizer(config.model, sentences(sample))
    answers = most_frequent_answers(sample, config.data.max_answers)
    network = fresh_config(config.model, stores[0].manifest, tokenizer, answers=answers)
    torch.manual_seed(config.train.seed)
    model = SemVLPForPreTraining(network)
    load_pretrained(
        model.semvlp,
        config.model,
        stores[0],
        some_features(stores),
        allow_other_regions=allow_other_regions,
    )
    return model, tokenizer


def active_weights(config: PretrainConfig, network: SemVLPConfig) -> dict[str, float]:
    """Return the weights of the objectives that are on and for which the data have classes."""
    classes = {
        "objects": network.num_objects,
        "attributes": network.num_attributes,
        "answers": len(network.answers or []),
    }
    wanted = {name: weight for name, weight in config.objectives.weights().items() if weight > 0}
    for name in wanted:
        if not classes.get(name, 1):
            log.warning("objectives.%s is left out: the shards hold no %s", name, name)
    return {name: weight for name, weight in wanted.items() if classes.get(name, 1)}


def open_stream(stores: Sequence[Store], config: PretrainConfig, world: World) -> Stream:
    """Open the visits of this rank.

    Raises:
        ConfigError: the images of a step do not divide among ranks and micro-batches.
    """
    share = config.images_per_step // world.size
    if share < config.train.gradient_accumulation_steps:
        raise ConfigError(
            f"train.gradient_accumulation_steps must be at most the {share} images that a rank "
            "reads for a step, "
            f"got {config.train.gradient_accumulation_steps}; lower it or raise train.batch_size"
        )
    return Stream(
        stores,
        seed=config.train.seed,
        batch_size=config.images_per_step,
        rank=world.rank,
        world_size=world.size,
        order=config.data.order,
        block_shards=config.data.block_shards,
        weights=config.data.weights or None,
        skip_damaged=True,
    )


class PreTrainingLosses(nn.Module):
    """The model and its objectives as one module, so that DDP sees every use of a parameter."""

    def __init__(
        self, model: SemVLPForPreTraining, names: Iterable[str], config: ObjectivesConfig
    ) -> None:
        super().__init__()
        self.model = model
        self._names, self._config = tuple(names), config

    def forward(self, micro_batch: MicroBatch, mode: Mode) -> dict[str, Tensor]:
        """Sum each objective over the micro-batch, by name."""
        targets = micro_batch.targets
        assert isinstance(targets, Targets)
        output = self.model(
            micro_batch.batch,
            mode,
            token_positions=targets.token_positions,
            region_positions=targets.region_positions,
        )
        return pretraining_losses(output, targets, self._names, self._config)
