"""Training steps a second: this project against VisualBERT and LXMERT of transformers.

    python benchmarks/train.py --threads 2
    python benchmarks/train.py --device cuda --precision bf16 --attention-dropout 0 --compile \
        --batch-sizes 64 128 256 512 --peak-tflops PEAK --waiting-steps 100 --workers 3

A step is forward, backward, clipping and AdamW update of the same pairs: 8-24 tokens and, as
`semvlp extract` makes them, 36-100 regions (`--regions 36 36`: as many for every image), of which
15 % are masked. The others get them padded to the longest of the batch, as their users do, and
compute their own pre-training losses; none reads data. Every round runs each network once on the
same batch, of which there are several, so that a noisy machine is noisy for all; medians are of the
rounds, and `alternate` is the mean of the two modes in each round. Peak memory is that of a process
that runs one network alone. A network that memory does not hold is left out of the batch sizes that
are too large for it.

Last, a short run of `semvlp pretrain` on shards of such pairs tells which share of its steps'
time it waited for data, and how many pairs a second it could have had where nobody trains.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from train_networks import MODES, PEERS, REGIONS, Setting, build, draw_pairs, loss_of, operations
from train_waiting import built_per_second, share_waited

from semvlp.train.run.bad_batch import is_out_of_memory

AIMS = {"cpu": {"VisualBERT": 1.3, "LXMERT": 1.5}, "cuda": {"LXMERT": 2.5}}
MODES_AIM, MFU_AIM, WAITING_AIM = 1.3, 0.45, 0.02
NO_ROOM = "out of memory"


def make_step(setting: Setting, model: nn.Module) -> Callable[[Callable[[], Tensor]], None]:
    """One training step: forward, backward, clipping, update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(loss_of: Callable[[], Tensor]) -> None:
        try:
            with torch.autocast(
                setting.device, torch.bfloat16, enabled=setting.precision == "bf16"
            ):
                loss = loss_of()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        finally:
            optimizer.zero_grad(set_to_none=True)

    return step


def seconds(setting: Setting, run: Callable[[], None]) -> float | None:
    """Wall time of `run`, the device's work included; None where memory does not hold it."""
    try:
        if setting.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if setting.device == "cuda":
            torch.cuda.synchronize()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return time.perf_counter() - start


def steps_of(
    setting: Setting, names: Sequence[str], batches: int
) -> dict[str, list[Callable[[], None]]]:
    """A step of each network on each batch; both modes share a network."""
    drawn = [draw_pairs(setting, number) for number in range(batches)]
    steps: dict[str, list[Callable[[], None]]] = {}
    ours = build("single", setting) if set(names) & set(MODES) else None
    step_of_ours = make_step(setting, ours) if ours else None
    for name in names:
        model = ours if name in MODES else build(name, setting)
        assert model is not None
        step = step_of_ours if name in MODES else make_step(setting, model)
        assert step is not None
        steps[name] = [functools.partial(step, loss_of(name, model, pairs)) for pairs in drawn]
    return steps


def rounds(
    setting: Setting, names: Sequence[str], warmup: int, count: int, batches: int
) -> dict[str, list[float]]:
    """Seconds of a step of each network, round by round; none where memory does not hold it."""
    runs = steps_of(setting, names, batches)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + count):
        for name in tuple(runs):
            taken = seconds(setting, runs[name][number % batches])
            if taken is None:
                del runs[name]
                times[name].clear()
            elif number >= warmup:
                times[name].append(taken)
    return times


def with_alternate(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Steps that take turns cost the mean of the two modes."""
    single, two, *others = times.items()
    both = [statistics.mean(pair) for pair in zip(single[1], two[1], strict=False)]
    return dict([single, two, ("alternate", both), *others])


def peak_memory(setting: Setting, name: str) -> float:
    """GiB at the peak of two rounds, in this process."""
    rounds(setting, [name], warmup=1, count=1, batches=1)
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


def print_table(setting: Setting, times: dict[str, list[float]], memory: dict[str, float]) -> None:
    """Medians and ratios as a Markdown table; a ratio is the median of those of the rounds."""
    heads = [f"{kind} {peer}" for kind in ("speed /", "memory /") for peer in PEERS]
    print(f"\nbatch of {setting.batch_size} pairs\n")
    print("| network | s/step | pairs/s | peak GiB | " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * (3 + len(heads)))
    for name, taken in times.items():
        cells = [NO_ROOM, "-"]
        if taken:
            median = statistics.median(taken)
            cells = [f"{median:.3f}", f"{setting.batch_size / median:.2f}"]
        cells.append(f"{memory[name]:.2f}" if name in memory else "-")
        cells += [ratio(times[peer], taken) for peer in PEERS]
        cells += [share(memory, name, peer) for peer in PEERS]
        print(f"| {name} | " + " | ".join(cells) + " |")
    aims = ", ".join(f"{aim}x {peer}" for peer, aim in AIMS[setting.device].items())
    print(f"\naims of single, two and alternate on {setting.device}: at least {aims}")
    modes = ratio(times["two"], times["single"])
    print(f"two-stream step / single-stream step: {modes} (aim: at most {MODES_AIM})")


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """Median over the rounds of how many times as long the one takes."""
    found = [a / b for a, b in zip(one, other, strict=False)]
    return f"{statistics.median(found):.2f}" if found else "-"


def share(memory: dict[str, float], name: str, peer: str) -> str:
    """How many times the memory of `peer` a network takes."""
    return f"{memory[name] / memory[peer]:.2f}" if {name, peer} <= memory.keys() else "-"


def print_utilisation(setting: Setting, times: dict[str, list[float]], peak: float | None) -> None:
    """TFLOP/s of both modes, and the share of `peak` TFLOP/s where it is given."""
    for mode in MODES:
        if times[mode]:
            rate = operations(setting, mode) / statistics.median(times[mode]) / 1e12
            used = f", {rate / peak:.1%} of {peak:g}" if peak else ""
            aim = f" (aim at the best batch size: at least {MFU_AIM:.0%})" if peak else ""
            print(f"{mode}: {rate:.3f} TFLOP/s{used}{aim if mode == 'single' else ''}")


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
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--batches", type=int, default=3, help="which the rounds take in turn, each of its own seed"
    )
    parser.add_argument("--regions", type=int, nargs=2, default=REGIONS, metavar=("LOW", "HIGH"))
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak-tflops", type=float, help="of the device, by its data sheet")
    parser.add_argument(
        "--waiting-steps", type=int, default=4, help="of the run that reads data; 0 leaves it out"
    )
    parser.add_argument("--workers", type=int, default=0, help="data.workers of that run (0)")
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
            regions=tuple(given.regions),
        )
        if given.alone:
            print(peak_memory(setting, given.alone))
        else:
            compare(setting, given)
    if not given.alone:
        facts = {**vars(given), "threads": torch.get_num_threads()}
        facts |= {"torch": torch.__version__, "transformers": transformers.__version__}
        print(json.dumps(facts))


def compare(setting: Setting, given: argparse.Namespace) -> None:
    """Everything about one batch size."""
    names = [*MODES, *PEERS]
    times = with_alternate(rounds(setting, names, given.warmup, given.rounds, given.batches))
    memory: dict[str, float] = {}
    if not given.no_memory:
        memory = {
            name: peak_memory_alone(name, setting.batch_size) for name in names if times[name]
        }
        if times["alternate"]:
            memory["alternate"] = max(memory[mode] for mode in MODES)
    print_table(setting, times, memory)
    print_utilisation(setting, times, given.peak_tflops)
    if given.waiting_steps and times["alternate"]:
        waited = share_waited(setting, given.waiting_steps, given.threads or 0, given.workers)
        print(f"waiting for data: {100 * waited:.2f} % of a step (aim: below {WAITING_AIM:.0%})")
        most = built_per_second(setting, given.waiting_steps, given.workers)
        print(f"pairs that could be had at most: {most:,.0f} a second")


if __name__ == "__main__":
    main()
