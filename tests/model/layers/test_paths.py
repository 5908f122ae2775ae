"""The two attention paths against each other, and which of them a pass takes."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from semvlp.model import PackedBatch, SemVLPConfig, SemVLPForPreTraining, SemVLPModel
from semvlp.model.layers.attention import choose_path, varlen_obstacle
from semvlp.model.packing import Mode
from tests.model.flash_reference import Calls

MakeBatch = Callable[..., PackedBatch]

LENGTHS = [(3, 2), (1, 0), (5, 4), (2, 7), (4, 1), (2, 2), (7, 3), (1, 6), (3, 3)]
# Segments of more than 128 rows, for which varlen_attn may take another kernel.
LONG = [(150, 140), (129, 64), (20, 100), (3, 2)]
MODES: tuple[Mode, ...] = ("single", "two")

# Relative to the norm of a tensor: the same float32 sums in another order through three layers.
CLOSE = 1e-4
# In bf16 both paths round, at different places. Neither may be much further from float32 than the
# other, as in the tests of flash-attention; the second number is one rounding of the tensor.
FACTOR, ROUNDING = 2.0, 2**-8
# Weights of this size leave softmax far from its ends. There gradients of scores are differences of
# almost equal numbers, and flash, which takes them from its rounded output, is several times worse.
GENTLE = 0.1

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def outputs(model: SemVLPModel, batch: PackedBatch, mode: Mode, path: str) -> dict[str, Tensor]:
    """Hidden states of a pass on one path, and gradients of all weights."""
    model.set_attn_implementation(path)
    model.zero_grad()
    encoded = model(batch, mode)
    weights = torch.linspace(-1, 1, model.config.hidden_size, device=batch.device)
    sum((part.float() * weights).sum() for part in encoded.values()).backward()  # type: ignore[union-attr]
    return dict(encoded) | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def check_agreement(model: SemVLPModel, batch: PackedBatch, mode: Mode) -> None:
    """Both paths in the dtype of the model, against SDPA in float32 with the same weights."""
    sdpa, varlen = (outputs(model, batch, mode, path) for path in ("sdpa", "varlen"))
    exact = outputs(copy.deepcopy(model).float(), batch, mode, "sdpa")
    assert varlen.keys() == sdpa.keys()
    for name, tensor in exact.items():
        if name.endswith("key.bias"):  # zero but for rounding: a softmax does not see it
            continue
        size = tensor.norm()
        if model.dtype == torch.float32:
            assert (varlen[name] - tensor).norm() <= CLOSE * size, name
        else:
            errors = [(actual[name].float() - tensor).norm() for actual in (varlen, sdpa)]
            assert errors[0] <= FACTOR * errors[1] + ROUNDING * size, name


@pytest.mark.usefixtures("anywhere")
@dtypes
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cross_attention", ["shared", "separate", "tied"])
def test_paths_agree_around_the_kernel(
    config: SemVLPConfig,
    make_batch: MakeBatch,
    mode: Mode,
    cross_attention: str,
    dtype: torch.dtype,
) -> None:
    config.cross_attention = cross_attention
    config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
    config.initializer_range = GENTLE
    model = SemVLPModel(config).to(dtype).train()
    check_agreement(model, make_batch(LENGTHS), mode)


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("lengths", [LENGTHS, [(1, 2), (1, 0), (1, 3)], [(2, 0), (3, 0)]])
def test_paths_agree_in_both_halves(
    config: SemVLPConfig, make_batch: MakeBatch, lengths: list[tuple[int, int]]
) -> None:
    model, batch = SemVLPModel(config).eval(), make_batch(lengths)
    pooled = []
    for path in ("sdpa", "varlen"):
        model.set_attn_implementation(path)
        with torch.inference_mode():
            pooled.append(model.upper(*model.lower(batch)))
    torch.testing.assert_close(pooled[0], pooled[1], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(varlen, "_can_use_cudnn"), reason="PyTorch before 2.14: no cuDNN")
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("mode", MODES)
def test_cudnn_is_never_taken_in_either_direction(
    config: SemVLPConfig, make_batch: MakeBatch, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch itself answers, on an H100, to the arguments that the kernels get."""
    config.max_position_embeddings, config.attention_probs_dropout_prob = 200, 0.0
    model = SemVLPModel(config).to(torch.bfloat16).train()
    with Calls() as calls:
        outputs(model, make_batch(LONG), mode, "varlen")
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda _: True)
    for seen in calls.seen:
        with FakeTensorMode():
            heads = [
                torch.empty(seen[name].shape, dtype=seen[name].dtype, device="cuda")
                for name in ("query", "key", "value")
            ]
        assert not varlen._can_use_cudnn(*heads, seen["max_q"], seen["window_size"])
        assert varlen._can_use_cudnn(*heads, seen["max_q"], [-1, -1]) == (seen["max_q"] > 128)
    assert max(seen["max_q"] for seen in calls.seen) > 128
    assert sum("grad_out" in seen for seen in calls.seen) == len(calls.seen) / 2


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", [LENGTHS, LONG], ids=["short", "long"])
def test_the_flash_kernel_agrees_with_sdpa(
    config: SemVLPConfig, make_batch: MakeBatch, lengths: list[tuple[int, int]], mode: Mode
) -> None:
    config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
    config.initializer_range, config.max_position_embeddings = GENTLE, 200
    model = SemVLPModel(config).to("cuda", torch.bfloat16).train()
    check_agreement(model, make_batch(lengths).to("cuda"), mode)


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_the_flash_kernel_agrees_with_float32(
    config: SemVLPConfig, make_batch: MakeBatch, mode: Mode
) -> None:
    """Sixteen roundings: three layers of hidden states, each rounded at several places."""
    config.max_position_embeddings = 200
    model = SemVLPModel(config).to("cuda").eval()
    batch = make_batch([*LENGTHS, *LONG]).to("cuda")
    with torch.inference_mode():
        expected = model(batch, mode)
        actual = model.to(torch.bfloat16)(batch, mode)
    for exact, rounded in zip(expected.values(), actual.values(), strict=True):
        error = (exact - rounded.float()).abs().max()
        assert error <= 16 * ROUNDING * exact.abs().max()


@no_gpu
@pytest.mark.gpu
def test_auto_takes_the_flash_kernel_where_it_can() -> None:
    rows = torch.zeros(2, 16, device="cuda")
    assert choose_path("auto", rows, dropout=0.0, head_width=8) == "sdpa"
    assert choose_path("auto", rows.bfloat16(), dropout=0.0, head_width=8) == "varlen"
    assert choose_path("auto", rows.bfloat16(), dropout=0.1, head_width=8) == "sdpa"
    assert choose_path("sdpa", rows.bfloat16(), dropout=0.0, head_width=8) == "sdpa"
    with torch.autocast("cuda", torch.bfloat16):
        assert choose_path("auto", rows, dropout=0.0, head_width=8) == "varlen"


@pytest.mark.parametrize(
    ("dtype", "dropout", "head_width", "words"),
    [
        (torch.float32, 0.0, 64, "needs bfloat16 or float16, got torch.float32"),
        (torch.bfloat16, 0.1, 64, "attention_probs_dropout_prob must be 0 in training, got 0.1"),
        (torch.bfloat16, 0.0, 12, "multiple of 8 and at most 256 wide, got 12"),
        (torch.float16, 0.0, 264, "multiple of 8 and at most 256 wide, got 264"),
        (torch.float16, 0.0, 256, None),
        (torch.bfloat16, 0.0, 64, None),
    ],
)
def test_what_the_flash_kernel_needs(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    dropout: float,
    head_width: int,
    words: str | None,
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    obstacle = varlen_obstacle(torch.device("cuda"), dtype, dropout=dropout, head_width=head_width)
    assert obstacle is None if words is None else words in str(obstacle)


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Tesla T4")
    obstacle = varlen_obstacle(torch.device("cuda"), torch.float16, dropout=0.0, head_width=64)
    assert obstacle == "needs compute capability 8.0, got Tesla T4"


def test_without_a_gpu_auto_takes_sdpa_and_varlen_says_why(
    config: SemVLPConfig, make_batch: MakeBatch
) -> None:
    model, batch = SemVLPModel(config).eval(), make_batch(LENGTHS)
    assert model.config._attn_implementation == "auto"
    model(batch, "single")
    model.set_attn_implementation("varlen")
    with pytest.raises(ValueError, match="'varlen' needs a CUDA device, got cpu"):
        model(batch, "single")


def test_unknown_implementations(config: SemVLPConfig) -> None:
    with pytest.raises(ValueError, match="one of auto, varlen, sdpa, got 'flex_attention'"):
        SemVLPModel(config).set_attn_implementation("flex_attention")


def check_compiled(config: SemVLPConfig, make_batch: MakeBatch, backend: str) -> None:
    """Same numbers as not compiled, and batches of other lengths need no other graph."""
    config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
    model = SemVLPForPreTraining(config).train()
    batches = [
        make_batch([(3, 2), (1, 1), (5, 4), (2, 7)]),
        make_batch([(3, 2), (4, 3), (2, 2)]),
        make_batch([(7, 2), (4, 3), (3, 6), (7, 3), (3, 9)]),
    ]

    def run(batch: PackedBatch, mode: Mode) -> list[Tensor]:
        model.zero_grad()
        indices = torch.arange(3)
        output = model(batch, mode, token_positions=indices, region_positions=indices)
        torch.stack([part.pow(2).sum() for part in output.values()]).sum().backward()
        grads = [p.grad for p in model.semvlp.encoder.parameters() if p.grad is not None]
        return [*output.values(), *grads]

    expected = [run(batch, mode) for batch in batches for mode in MODES]
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    model.compile_blocks(backend=counter)
    counts, actual = [], []
    for batch in batches:
        actual += [run(batch, mode) for mode in MODES]
        counts.append(counter.frame_count)
    for own, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    assert 0 < counts[0] <= 8  # either mode, with and without a slot, and the last block
    assert counts == counts[:1] * 3


# The tracer itself looks at .grad of tensors inside the graph.
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@compiles
@pytest.mark.usefixtures("anywhere")
def test_blocks_compile_without_graph_breaks(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    small = dataclasses.replace(config, num_hidden_layers=2, cross_layers=1)
    check_compiled(small, make_batch, "eager")


@compiles
@pytest.mark.slow
@pytest.mark.usefixtures("anywhere")
def test_blocks_compile_through_autograd(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    check_compiled(config, make_batch, "aot_eager")


@compiles
@pytest.mark.slow
def test_blocks_compile_on_the_padded_path(config: SemVLPConfig, make_batch: MakeBatch) -> None:
    check_compiled(config, make_batch, "eager")
