"""What is said of a checkpoint that is none, and that what is said is true."""

import shlex
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer, LxmertConfig, LxmertModel

from semvlp.addresses import refuse_missing_checkpoint
from semvlp.cli import cli
from semvlp.commands.console import run
from semvlp.errors import InputError
from tests.shards.datasets import write_dataset


@pytest.mark.parametrize("name", ["pytorch_model.bin", "old.pth", "epoch-3.ckpt"])
@pytest.mark.parametrize("option", ["init", "model.pretrained", "model.tokenizer"])
def test_old_weights_are_answered_with_the_line_that_makes_a_checkpoint(
    tmp_path: Path, name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / name
    torch.save({"a": torch.zeros(1)}, old)
    write_dataset(tmp_path / "shards")
    if option == "init":
        task = ("finetune", "--task", "nlvr2", "--annotations", old, "--init", old)
        command = (*task, "--shards", tmp_path / "shards", "--out", tmp_path / "run")
    else:
        start = ("pretrain", tmp_path / "shards", "--out", tmp_path / "run")
        command = (*start, "--set", f"{option}={old}")
    assert run(cli, "semvlp", list(map(str, command))) in (2, 3)
    said = capsys.readouterr().err
    assert "is a folder with config.json, model.safetensors and a vocabulary" in said
    assert f"torch.load('{old}', weights_only=True)" in said
    assert not (tmp_path / "run").exists()


def test_the_line_makes_a_checkpoint_of_the_weights_of_lxmert(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As airsplay/lxmert saves them: below `module.bert.`, with the heads beside."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = LxmertConfig(vocab_size=6, l_layers=1, x_layers=1, r_layers=1, **sizes)
    model = LxmertModel(config)
    state = {f"module.bert.{name}": tensor for name, tensor in model.state_dict().items()}
    old = tmp_path / "Epoch20_LXRT.pth"
    torch.save({**state, "module.answer_head.logit_fc.0.weight": torch.zeros(2)}, old)
    config.save_pretrained(tmp_path / "config")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "config")
    with pytest.raises(InputError) as refused:
        refuse_missing_checkpoint(old, "--init")
    python, option, line = shlex.split(str(refused.value).rpartition("\n")[2])
    assert (python, option) == ("python", "-c")
    line = line.replace("unc-nlp/lxmert-base-uncased", str(tmp_path / "config"))
    line = line.replace("'NEW'", f"'{tmp_path / 'new'}'")
    exec(line, {})
    assert "missing_keys=[]" in capsys.readouterr().out
    loaded = LxmertModel.from_pretrained(tmp_path / "new", use_safetensors=True).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    assert {"tokenizer.json", "model.safetensors"} <= {p.name for p in (tmp_path / "new").iterdir()}
