"""Referring expressions of a drawn world: from a demo's pre-training to accuracy at IoU 0.5.

Another world is drawn than the demo's; its regions are extracted as the demo's were, the network
is fine-tuned on the expressions of one part, another part chooses the checkpoint, and a third one
is scored in both modes. Nothing is pre-trained.
"""

from dataclasses import replace
from pathlib import Path

from semvlp import settings
from semvlp.demo import recipe
from semvlp.demo.dataset.files import write_world
from semvlp.demo.experiments import standalone
from semvlp.demo.world.config import SQUARE_SCENES
from semvlp.eval.eval_report import EvalReport
from semvlp.eval.evaluate import EvalOptions, evaluate
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.train.config import FinetuneConfig
from semvlp.train.finetune import finetune

SEED = 7
SCENES = {"train": 1500, "valid": 100, "heldout": 300}
WORLD = replace(SQUARE_SCENES, expressions=6, most_items=5)
FINETUNE = (*recipe.FINETUNE, "train.epochs=3", "data.max_text_length=40")


def run_refcoco(demo: Path, out: Path) -> EvalReport:
    """Run every stage; one that an earlier call has finished is not done again.

    Args:
        demo: what `semvlp demo` wrote; its `pretrain/last` is fine-tuned.
    """
    world = write_world(out / "world", scenes=SCENES, seed=SEED, config=WORLD)
    regions, run = out / "regions", out / "finetune"
    extract(world.root / "images", regions, ExtractSettings(detector="demo", precision="auto"))
    task = load_task("refcoco")
    train, valid, heldout = (world.annotations("refcoco", split) for split in SCENES)
    finetune(
        task,
        train,
        regions,
        demo / "pretrain" / "last",
        run,
        settings.load(FinetuneConfig, None, FINETUNE),
        valid=valid,
    )
    return evaluate(
        task,
        run / "best",
        heldout,
        regions,
        out / "eval",
        EvalOptions(split="heldout", mode="both", images=world.root / "images"),
    )


if __name__ == "__main__":
    standalone.main(run_refcoco, __doc__ or "", Path("runs/refcoco"))
