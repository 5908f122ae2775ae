"""`semvlp settings`, recipes by name, options that are settings, the tables in docs/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from semvlp.cli import cli
from semvlp.commands import settings_cli
from semvlp.commands.console import run
from semvlp.commands.settings_cli import COMMANDS, defaults_of
from semvlp.commands.settings_pages import renewed
from semvlp.settings import load
from semvlp.train.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
OF_THE_CONTRACT = ["model.preset", "model.cross_layers", "model.dropout"] + [
    f"train.{name}"
    for name in ("schedule", "steps", "batch_size", "lr", "seed", "log_every", "save_every")
]


def semvlp(*arguments: str) -> int:
    return run(cli, "semvlp", arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_a_default_and_a_documentation(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    assert semvlp("settings", command, "--json") == 0
    settings = json.loads(capsys.readouterr().out)[command]
    assert len(settings) > 10
    for name, setting in settings.items():
        assert setting["doc"].endswith((".", ")")), name
        assert setting["type"] or setting["choices"], name


def test_the_settings_of_the_contract_are_shown(capsys: pytest.CaptureFixture) -> None:
    for command in ("pretrain", "finetune"):
        assert semvlp("settings", command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert set(OF_THE_CONTRACT) <= {line.split(" ")[0] for line in lines}


def test_without_a_command_all_are_shown(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("settings", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == list(COMMANDS)
    lr = shown["finetune"]["train.lr"]
    assert lr == {
        "type": "float",
        "choices": [],
        "default": 5e-5,
        "doc": "Peak learning rate.",
        "other_names": [],
    }
    schedule = shown["pretrain"]["train.schedule"]
    assert schedule["choices"] == ["alternate", "ratio", "single", "two"]
    assert schedule["type"] == "list of text"
    assert schedule["other_names"] == ["train.modes"]


def test_on_a_terminal_no_line_is_wider(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert semvlp("settings", "detector") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize("command", ["pretrain", "finetune", "detector"])
def test_the_file_to_start_from_holds_the_defaults(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert semvlp("settings", command, "--toml") == 0
    file = tmp_path / "start.toml"
    file.write_text(capsys.readouterr().out)
    defaults = defaults_of(command)
    assert load(type(defaults), file) == defaults
    assert "# Peak learning rate.\n# float\nlr = " in file.read_text() or command == "detector"


def test_a_file_to_start_from_is_of_a_command_with_config(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("settings", "--toml") == 2
    assert "pretrain" in capsys.readouterr().err
    assert semvlp("settings", "extract", "--toml") == 2
    assert "--set" in capsys.readouterr().err


def test_recipes_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("settings", "--recipes") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(RECIPES)
    assert "tiny" in RECIPES
    assert semvlp("settings", "--recipes", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["recipes"]) == list(RECIPES)


def test_an_unknown_recipe_ends_with_2_and_lists_them(capsys: pytest.CaptureFixture) -> None:
    assert semvlp("pretrain", "shards", "--config", "semvlp_bsae") == 2
    error = capsys.readouterr().err
    assert "did you mean --config semvlp_base?" in error
    assert all(name in error for name in RECIPES)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("pretrain s --lr 1e-4", "--set train.lr=1e-4"),
        ("pretrain s --lr=1e-4", "--set train.lr=1e-4"),
        ("pretrain s --batch-size 8", "--set train.batch_size=8"),
        ("pretrain s --train.lr 3", "--set train.lr=3"),
        ("pretrain s --compile", "--set train.compile=true"),
        ("pretrain s --lr", "--set train.lr=VALUE"),
        ("pretrain s --bert bert-base", "--set model.pretrained=bert-base"),
        ("pretrain s --modes single", "--set train.schedule=single"),
        ("finetune --task vqa --epochs 3", "--set train.epochs=3"),
        ("finetune --task vqa --negative-rate 0", "--set retrieval.negative_rate=0"),
        ("detector train README.md . --steps 9", "--set steps=9"),
        ("extract images --shorter-side 400", "--set shorter_side=400"),
    ],
)
def test_an_option_that_is_a_setting_is_answered_with_set(
    arguments: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    assert semvlp(*arguments.split()) == 2
    option = next(word for word in arguments.split() if word.startswith("--") and word != "--task")
    answer = f"No such option '{option.partition('=')[0]}'; it is a setting: {meant} ("
    assert answer in capsys.readouterr().err


def test_several_settings_of_one_name_are_all_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pretrain, finetune = defaults_of("pretrain"), settings_cli.tables_of(defaults_of("finetune"))
    tables = [*settings_cli.tables_of(pretrain), *(t for t in finetune if t.name == "retrieval")]
    monkeypatch.setattr(settings_cli, "tables_of", lambda _: tables)
    assert semvlp("pretrain", "s", "--negatives", "x") == 2
    answer = "--set objectives.negatives=x or --set retrieval.negatives=x"
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--epochs", "--nonsense", "--outt"])
def test_an_option_that_is_no_setting_is_unknown(
    option: str, capsys: pytest.CaptureFixture
) -> None:
    assert semvlp("pretrain", "shards", option, "3") == 2
    error = capsys.readouterr().err
    assert f"No such option '{option}'" in error or f"No such option: {option}" in error
    assert "setting" not in error


@pytest.mark.parametrize(
    "arguments", [["settings", "pretrain"], ["finetune", "--task", "vqa", "--epochs", "3"]]
)
def test_settings_are_known_without_torch(arguments: list[str]) -> None:
    probe = (
        "import sys; from semvlp.cli import cli; from semvlp.commands.console import run;"
        f"run(cli, 'semvlp', {arguments!r}); print([m for m in ('torch', 'numpy', 'transformers')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_tables_of_the_documentation_are_those_of_the_program(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, f"{page.name} is out of date: make docs-tables renews it"


def test_a_table_that_is_out_of_date_is_renewed() -> None:
    marker = "<!-- settings: pretrain data objectives besides finetune -->\n"
    page = renewed(f"before\n{marker}old\n<!-- end of settings -->\nafter")
    assert page.startswith(f"before\n{marker}\n| setting ")
    assert page.endswith("|\n\n<!-- end of settings -->\nafter")
    assert "| `data.order` | `full`, `block`, `sequential` | `full` |" in page
    assert "`objectives.mlm`" in page
    assert "data.max_regions" not in page  # the same in fine-tuning
    assert "old" not in page
    assert renewed(page) == page
