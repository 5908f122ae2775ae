"""A small drawn world, its regions, and a checkpoint of each kind of task, hardly trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from semvlp import settings
from semvlp.app.assistant import Assistant, load
from semvlp.app.search import Hit
from semvlp.app.serve.album import Album
from semvlp.demo.dataset.files import WorldFiles, write_world
from semvlp.demo.world.config import WorldConfig
from semvlp.eval.tasks.table import load_task
from semvlp.extract.pipeline import ExtractSettings, extract
from semvlp.shards.maintenance.convert import join
from semvlp.shards.open import open_store
from semvlp.shards.stores.store import Store
from semvlp.train.config import FinetuneConfig, PretrainConfig
from semvlp.train.finetune import finetune
from semvlp.train.pretrain import pretrain

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from semvlp.app.serve.desk import Desk

SMALL = ("train.device=cpu", "train.precision=fp32", "train.batch_size=8", "train.steps=2")


@dataclass(frozen=True)
class Drawn:
    """Where everything is."""

    root: Path
    world: WorldFiles

    @property
    def photos(self) -> list[Path]:
        return sorted(self.world.images("train").iterdir())

    def checkpoint(self, task: str) -> Path:
        """Fine-tune on a task, once."""
        run = self.root / f"finetune-{task}"
        if not run.exists():
            config = settings.load(FinetuneConfig, None, SMALL)
            annotations = self.world.annotations(task, "train")
            start = self.root / "pretrain" / "last"
            finetune(load_task(task), annotations, self.root / "regions", start, run, config)
        return run / "last"

    def assistant(self, task: str, **options: str) -> Assistant:
        return load(self.checkpoint(task), device="cpu", **options)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    root = tmp_path_factory.mktemp("drawn")
    config = WorldConfig(towers=0, scatter=0.5, square=1, covered=1, nlvr=0.4, pairs=1)
    world = write_world(root / "world", scenes={"train": 10}, seed=3, config=config)
    chosen = ExtractSettings(detector="demo", min_regions=1, max_regions=9, device="cpu")
    extract(world.root / "images", root / "regions", chosen)
    join(root / "regions", [world.texts("train")], root / "shards", only_matched=True)
    config = settings.load(PretrainConfig, None, (*SMALL, "model.preset=tiny"))
    pretrain([root / "shards"], root / "pretrain", config)
    return Drawn(root, world)


@pytest.fixture(scope="session")
def store(drawn: Drawn) -> Iterator[Store]:
    with open_store(drawn.root / "regions") as opened:
        yield opened


class Finder:
    """Finds the first photographs, whatever the text."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def search(self, text: str, *, top: int) -> list[Hit]:
        return [Hit(one, one, None, 0.5) for one in self.ids[:top]]


@pytest.fixture(scope="session")
def album(drawn: Drawn) -> Iterator[Album]:
    album = Album.opened(drawn.root / "regions", drawn.world.images("train"))
    yield album
    album.close()


@pytest.fixture(scope="session")
def desk(drawn: Drawn, album: Album) -> "Desk":
    pytest.importorskip("starlette", reason="needs semvlp[serve]")
    from semvlp.app.serve.desk import Desk

    assistants = {task: drawn.assistant(task) for task in ("vqa", "nlvr2", "retrieval")}
    return Desk(assistants, album, Finder(album.store.image_ids))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def client(desk: "Desk") -> "TestClient":
    pytest.importorskip("uvicorn", reason="needs semvlp[serve]")
    from starlette.testclient import TestClient

    from semvlp.app.serve.server import application

    return TestClient(application(desk), base_url="http://127.0.0.1:8765")
