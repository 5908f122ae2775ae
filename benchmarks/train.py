"""Training steps a second: this project against VisualBERT and LXMERT of transformers.

    python benchmarks/train.py --device cpu --batch-sizes 16 --threads 2
    python benchmarks/train.py --device cuda --precision bf16 --attention-dropout 0 --compile \
        --batch-sizes 64 128 256 512

A step is forward, backward, clipping and AdamW update of the same pairs: 8-24 tokens and 10-100
regions, of which 15 % are masked. The others get them padded to the longest of the batch, as their
users do, and compute their own pre-training losses; none reads data. Every round runs each network
once, so that a noisy machine is noisy for all; medians are of the rounds. Peak memory is that of a
process that runs one network alone.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LxmertConfig,
    LxmertForPreTraining,
    VisualBertConfig,
    VisualBertForPreTraining,
)

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining
from semvlp.model.packing import Mode, to_padded

TOKENS, REGIONS, FEATURES = (8, 24), (10, 100), 2048
VOCABULARY, OBJECTS, ATTRIBUTES, ANSWERS = 30522, 1600, 400, 9500
MASKED = 0.15
IGNORED = -100  # what cross_entropy, and so the other two, leave out

OURS = ("single", "two", "alternate")
PEERS = ("VisualBERT", "LXMERT")

# Dense bf16 TFLOP/s of the data sheets.
PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for every network of a run."""

    preset: str
    device: str
    precision: str
    batch_size: int
    attention_dropout: float
    compiled: bool
    seed: int


@dataclass(frozen=True)
class Pairs:
    """The batch of a step, and what is to be predicted of it."""

    batch: PackedBatch
    tokens: Tensor
    """[M] masked places in `input_ids`."""
    regions: Tensor
    """[K] masked places in `region_features`."""
    matched: Tensor
    """[N]"""
    answers: Tensor
    """[N]"""
    objects: Tensor
    """[R]"""
    attributes: Tensor
    """[R]"""


def draw_pairs(setting: Setting) -> Pairs:
    """Pairs of uneven lengths, drawn by the seed."""
    random = torch.Generator().manual_seed(setting.seed)
    count = setting.batch_size
    text_lengths = torch.randint(TOKENS[0], TOKENS[1] + 1, (count,), generator=random)
    region_lengths = torch.randint(REGIONS[0], REGIONS[1] + 1, (count,), generator=random)
    num_tokens, num_regions = int(text_lengths.sum()), int(region_lengths.sum())
    corners = torch.rand(num_regions, 2, 2, generator=random)
    regions = torch.randperm(num_regions, generator=random)[: round(MASKED * num_regions)]
    mask = torch.zeros(num_regions, dtype=torch.bool)
    mask[regions] = True
    batch = PackedBatch(
        input_ids=torch.randint(1000, VOCABULARY, (num_tokens,), generator=random),
        region_features=torch.randn(num_regions, FEATURES, generator=random).abs(),
        region_boxes=torch.cat([corners.amin(1), corners.amax(1)], dim=1),
        text_lengths=text_lengths,
        region_lengths=region_lengths,
        region_mask=mask,
    )
    return Pairs(
        batch=batch.to(setting.device),
        tokens=torch.randperm(num_tokens, generator=random)[: round(MASKED * num_tokens)].to(
            setting.device
        ),
        regions=regions.to(setting.device),
        matched=torch.randint(0, 2, (count,), generator=random).to(setting.device),
        answers=torch.randint(0, ANSWERS, (count,), generator=random).to(setting.device),
        objects=torch.randint(0, OBJECTS, (num_regions,), generator=random).to(setting.device),
        attributes=torch.randint(0, ATTRIBUTES, (num_regions,), generator=random).to(
            setting.device
        ),
    )


def our_loss(model: nn.Module, pairs: Pairs, mode: Mode) -> Tensor:
    """All six objectives of pre-training."""
    output = model(pairs.batch, mode, token_positions=pairs.tokens, region_positions=pairs.regions)
    cross_entropy = functional.cross_entropy
    masked = pairs.regions
    return (
        cross_entropy(output.token_logits, pairs.batch.input_ids[pairs.tokens])
        + functional.smooth_l1_loss(output.region_features, pairs.batch.region_features[masked])
        + cross_entropy(output.object_logits, pairs.objects[masked])
        + cross_entropy(output.attribute_logits, pairs.attributes[masked])
        + cross_entropy(output.match_logits, pairs.matched)
        + cross_entropy(output.answer_logits, pairs.answers)
    )


def visual_bert_inputs(pairs: Pairs) -> dict[str, Tensor]:
    """VisualBERT predicts masked words and whether text and image match."""
    batch = pairs.batch
    ids, real_tokens = to_padded(batch.input_ids, batch.text_lengths)
    features, real_regions = to_padded(batch.region_features, batch.region_lengths)
    labels, _ = to_padded(_labels(batch.input_ids, pairs.tokens) - IGNORED, batch.text_lengths)
    no_words = torch.zeros_like(real_regions, dtype=torch.int64)
    return {
        "input_ids": ids,
        "attention_mask": real_tokens.long(),
        "visual_embeds": features,
        "visual_attention_mask": real_regions.long(),
        "labels": torch.cat([labels, no_words], dim=1) + IGNORED,
        "sentence_image_labels": pairs.matched,
    }


def lxmert_inputs(pairs: Pairs) -> dict[str, Any]:
    """LXMERT predicts words, objects, attributes, features, matching and answers."""
    batch = pairs.batch
    ids, real_tokens = to_padded(batch.input_ids, batch.text_lengths)
    features, real_regions = to_padded(batch.region_features, batch.region_lengths)
    labels, _ = to_padded(_labels(batch.input_ids, pairs.tokens) - IGNORED, batch.text_lengths)
    chosen = torch.zeros(len(pairs.objects), device=batch.device).index_fill(0, pairs.regions, 1)
    masked, _ = to_padded(chosen, batch.region_lengths)
    objects, _ = to_padded(pairs.objects, batch.region_lengths)
    attributes, _ = to_padded(pairs.attributes, batch.region_lengths)
    return {
        "input_ids": ids,
        "attention_mask": real_tokens.long(),
        "visual_feats": features,
        "visual_pos": to_padded(batch.region_boxes, batch.region_lengths)[0],
        "visual_attention_mask": real_regions.long(),
        "labels": labels + IGNORED,
        "obj_labels": {
            "obj": (objects, masked),
            "attr": (attributes, masked),
            "feat": (features, masked),
        },
        "matched_label": pairs.matched,
        "ans": pairs.answers,
    }


def _labels(ids: Tensor, places: Tensor) -> Tensor:
    """[T] the ids at `places`, IGNORED elsewhere."""
    return torch.full_like(ids, IGNORED).index_copy_(0, places, ids[places])


def build(name: str, setting: Setting) -> nn.Module:
    """The network called `name`, fresh."""
    torch.manual_seed(setting.seed)
    own = SemVLPConfig.preset(
        setting.preset,
        answers=[str(number) for number in range(ANSWERS)],
        attention_probs_dropout_prob=setting.attention_dropout,
    )
    # LXMERT's numbers of layers are its own: 9 of text, 5 of regions, 5 of both.
    shared = ("hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {key: getattr(own, key) for key in (*shared, "attention_probs_dropout_prob")}
    model: nn.Module
    if name == "VisualBERT":
        model = VisualBertForPreTraining(
            VisualBertConfig(
                visual_embedding_dim=FEATURES, num_hidden_layers=own.num_hidden_layers, **sizes
            )
        )
    elif name == "LXMERT":
        model = LxmertForPreTraining(LxmertConfig(num_qa_labels=ANSWERS, **sizes))
    else:
        model = SemVLPForPreTraining(own)
        if setting.compiled:
            model.compile_blocks()
    model.train()
    return nn.Module.to(model, setting.device)


def losses_of(name: str, model: nn.Module, pairs: Pairs) -> list[Callable[[], Tensor]]:
    """The forward passes of a round: two for `alternate`, else one."""
    if name == "VisualBERT":
        inputs = visual_bert_inputs(pairs)
        return [lambda: model(**inputs).loss]
    if name == "LXMERT":
        lxmert = lxmert_inputs(pairs)
        return [lambda: model(**lxmert).loss]
    modes: Sequence[Mode] = ("single", "two") if name == "alternate" else (name,)  # type: ignore[assignment]
    return [functools.partial(our_loss, model, pairs, mode) for mode in modes]


def make_step(setting: Setting, model: nn.Module) -> Callable[[Callable[[], Tensor]], None]:
    """One training step: forward, backward, clipping, update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(loss_of: Callable[[], Tensor]) -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(setting: Setting, run: Callable[[], None]) -> float:
    """Wall time of `run`, the device's work included."""
    if setting.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rounds(setting: Setting, names: Sequence[str], warmup: int, count: int) -> dict[str, float]:
    """Median seconds of a step of each network."""
    pairs = draw_pairs(setting)
    ours = build("single", setting) if set(names) & set(OURS) else None
    step_of_ours = make_step(setting, ours) if ours else None
    runs: dict[str, list[Callable[[], None]]] = {}
    for name in names:
        model = ours if name in OURS else build(name, setting)
        assert model is not None
        step = step_of_ours if name in OURS else make_step(setting, model)
        assert step is not None
        runs[name] = [functools.partial(step, loss) for loss in losses_of(name, model, pairs)]
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + count):
        for name, steps in runs.items():
            taken = [seconds(setting, run) for run in steps]
            if number >= warmup:
                times[name].append(statistics.mean(taken))
    return {name: statistics.median(taken) for name, taken in times.items()}


def floating_point_operations(setting: Setting) -> dict[str, float]:
    """Of the matrix products and attentions of forward and backward, by mode."""
    pairs, model = draw_pairs(setting), build("single", setting)
    counts: dict[str, float] = {}
    modes: Sequence[Mode] = ("single", "two")
    for mode in modes:
        with (
            torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"),
            FlopCounterMode(display=False) as counter,
        ):
            our_loss(model, pairs, mode).backward()  # type: ignore[no-untyped-call]
        counts[mode] = float(counter.get_total_flops())
    return counts


def peak_memory(setting: Setting, name: str) -> float:
    """GiB at the peak of two rounds, in this process."""
    rounds(setting, [name], warmup=1, count=1)
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    # Of this program alone: ru_maxrss would begin with the size of the process that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20  # kB


def peak_memory_alone(name: str, batch_size: int) -> float:
    """`peak_memory` of a process of its own, called like this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
    command += ["--batch-sizes", str(batch_size)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout)


def print_table(setting: Setting, medians: dict[str, float], memory: dict[str, float]) -> None:
    """Medians and ratios as a Markdown table."""
    heads = [f"{kind} {peer}" for kind in ("speed /", "memory /") for peer in PEERS]
    print(f"\nbatch of {setting.batch_size} pairs\n")
    print("| network | s/step | pairs/s | peak GiB | " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * (3 + len(heads)))
    for name, median in medians.items():
        cells = [f"{median:.3f}", f"{setting.batch_size / median:.2f}"]
        cells.append(f"{memory[name]:.2f}" if memory else "-")
        cells += [f"{medians[peer] / median:.2f}" for peer in PEERS]
        cells += [f"{memory[name] / memory[peer]:.2f}" if memory else "-" for peer in PEERS]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\ntwo-stream step / single-stream step: {medians['two'] / medians['single']:.2f}")


def print_utilisation(setting: Setting, medians: dict[str, float]) -> None:
    """TFLOP/s of both modes, and the share of the device's peak where it is known."""
    known = torch.cuda.get_device_name() if setting.device == "cuda" else ""
    peak = next((value for name, value in PEAKS.items() if name in known), None)
    for mode, count in floating_point_operations(setting).items():
        rate = count / medians[mode] / 1e12
        share = f", {100 * rate / peak:.1f} % of {peak:g}" if peak else ""
        print(f"{mode}: {rate:.3f} TFLOP/s{share}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="base", help="size of all networks (base)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16])
    parser.add_argument("--attention-dropout", type=float, default=0.1)
    parser.add_argument("--compile", action="store_true", help="compile the blocks of this project")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    for batch_size in given.batch_sizes:
        setting = Setting(
            preset=given.preset,
            device=given.device,
            precision=given.precision,
            batch_size=batch_size,
            attention_dropout=given.attention_dropout,
            compiled=given.compile,
            seed=given.seed,
        )
        if given.alone:
            print(peak_memory(setting, given.alone))
            continue
        names = [*OURS, *PEERS]
        medians = rounds(setting, names, given.warmup, given.rounds)
        memory = {} if given.no_memory else {n: peak_memory_alone(n, batch_size) for n in names}
        print_table(setting, medians, memory)
        print_utilisation(setting, medians)
    if not given.alone:
        facts = {**vars(given), "threads": torch.get_num_threads()}
        facts |= {"torch": torch.__version__, "transformers": transformers.__version__}
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
