"""``ctc`` against a loop over runs, its loss against torch's own, and the paper's sizes."""

import itertools
import math

import contract
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapters.equations import linear, numbers, transformer

from stapes.adapters.ctc import CTC, TargetClasses
from stapes.errors import RecipeError
from stapes.types import Padded

OPTIONS = {"dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24}
LENGTHS = [40, 23, 1, 7]
TARGETS = [[2, 0, 3, 3, 1], [0, 2, 1], [1], [3, 1]]
PLACES = [(0, 0), (1, 2), (2, 3)]  # layers before, and with them the steps before: the first projection is one


def built(**options: float) -> CTC:
    torch.manual_seed(0)
    return contract.awake(CTC(12, 8, vocab_size=4, blank_id=1, **OPTIONS, **options))


def averages(h: np.ndarray, labels: list[int], most: float | None) -> np.ndarray:
    """Runs of one label as lists of frames, joined until no more than ``most`` are left, each averaged."""
    places = iter(range(len(labels)))
    groups = [[next(places) for _ in run] for _, run in itertools.groupby(labels)]
    if most is not None:
        limit = max(1, len(labels) * most if most < 1 else most)
        together = math.ceil(len(groups) / limit)
        groups = [list(itertools.chain(*groups[i : i + together])) for i in range(0, len(groups), together)]
    return np.stack([h[group].mean(0) for group in groups])


@pytest.mark.parametrize(("layers_before", "steps"), PLACES)
@pytest.mark.parametrize("most", [None, 0.25, 5])
@torch.no_grad()
def test_runs_are_averaged(most: float | None, layers_before: int, steps: int):
    adapter, frames = built(most=most, layers_before=layers_before), contract.frames(LENGTHS)
    found = adapter(frames)
    for row, embeddings in zip(frames.rows(), found.rows(), strict=True):
        h = transformer(row.numpy(), adapter.steps[:steps])
        labels = linear(h, adapter.logits).argmax(-1).tolist()
        z = transformer(averages(h, labels, most), adapter.steps[steps:])
        np.testing.assert_allclose(embeddings, z, rtol=1e-4, atol=1e-4)
    assert (found.lengths <= adapter.output_lengths(frames.lengths)).all()
    assert found.lengths[0] < LENGTHS[0]


@pytest.mark.parametrize(("layers_before", "steps"), PLACES)
def test_the_loss_is_torchs_without_the_end_token(layers_before: int, steps: int):
    adapter, frames = built(layers_before=layers_before), contract.frames(LENGTHS)
    _, losses = adapter.with_losses(frames, TARGETS, ["token_ctc"])
    wanted = 0.0
    for row, target in zip(frames.rows(), TARGETS, strict=True):
        h = torch.from_numpy(transformer(numbers(row), adapter.steps[:steps])).float()
        log_probs = adapter.logits(h).log_softmax(-1)[:, None]
        wanted += F.ctc_loss(log_probs, torch.tensor([target[:-1]]), (len(row),), (len(target) - 1,), 1, reduction="sum")
    torch.testing.assert_close(losses["token_ctc"], wanted)


@pytest.mark.parametrize(("wanted", "kept"), [(["token_ctc"], [False, True]), (["next_token"], [False])])
def test_a_loss_that_is_not_wanted_costs_nothing(wanted: list[str], kept: list[bool]):
    """The vocabulary is met once, for the labels, and of that nothing is kept for a backward pass."""
    adapter, frames = built(), contract.frames([9])
    met: list[bool] = []
    adapter.logits.register_forward_hook(lambda *_: met.append(torch.is_grad_enabled()))
    embeddings, losses = adapter.with_losses(frames, [[2, 1]], wanted)
    assert met == kept
    assert list(losses) == [name for name in wanted if name == "token_ctc"]
    torch.testing.assert_close(embeddings.values, adapter(frames).values)


@pytest.mark.parametrize("steps_at_a_time", [1, 5, 64])
def test_its_gradient_is_that_over_the_whole_vocabulary(steps_at_a_time: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stapes.adapters.ctc.STEPS_AT_A_TIME", steps_at_a_time)
    targets, lengths = [[2, 0, 3, 3, 1], [5, 1], [1]], [8, 5, 3]
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(3, 8, 40, generator=generator)).requires_grad_()
    classes = TargetClasses(targets, 1, logits.device)
    found = classes.loss(classes.log_probs(logits), torch.tensor(lengths))
    steps, flat = logits.log_softmax(-1).transpose(0, 1), torch.tensor([token for row in targets for token in row[:-1]])
    wanted = F.ctc_loss(steps, flat, torch.tensor(lengths), torch.tensor([4, 1, 0]), blank=1, reduction="sum")
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, wanted)))


def test_the_gradient_of_every_class_is_right_and_of_the_others():
    classes = TargetClasses([[2, 0, 3, 1]], 1, torch.device("cpu"))
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    known = logits[:, :4]
    wanted = torch.cat([known, logits[:, 4:].logsumexp(-1, keepdim=True)], -1).log_softmax(-1)
    found = classes.log_probs(logits)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((weights * values).sum(), logits)[0] for values in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_what_does_not_fit_counts_as_nothing():
    logits = torch.randn(1, 2, 4, requires_grad=True)
    classes = TargetClasses([[2, 3, 2, 1]], 1, logits.device)
    loss = classes.loss(classes.log_probs(logits), torch.tensor([2]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad.isfinite().all()


def test_a_batch_that_says_everything():
    """There are no other classes left."""
    logits = torch.randn(1, 9, 4, requires_grad=True)
    classes = TargetClasses([[0, 3, 2, 1]], 1, logits.device)
    loss = classes.loss(classes.log_probs(logits), torch.tensor([9]))
    loss.backward()
    assert float(loss.detach()) > 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("layers_before", [0, 1])
def test_gradients_reach_what_is_before_it(layers_before: int):
    adapter, frames = built(layers_before=layers_before), contract.frames(LENGTHS)
    values = frames.values.requires_grad_()
    adapter(Padded(values, frames.lengths)).values.square().sum().backward()
    assert values.grad[frames.mask].abs().amax(-1).gt(0).all(), "every frame is part of an average"


@pytest.mark.parametrize("most", [0, -1, 2.5])
def test_a_limit_that_is_none(most: float):
    with pytest.raises(RecipeError, match=r"adapter\.most: .* a share between 0 and 1, a whole number from 1"):
        CTC(12, 8, 4, 1, most=most, **OPTIONS)


@pytest.mark.parametrize(
    ("encoder_dim", "vocab_size", "options", "parameters"),
    [
        (1280, 32768, {}, 74_470_656),
        (1024, 32768, {}, 65_885_440),
        (1280, 128256, {}, 196_790_784),
        (1024, 128256, {}, 163_760_640),
        (1280, 32768, {"layers_before": 2}, 32_494_848 + 769 * 32768),
    ],
    ids=["Whisper, Mistral", "SeamlessM4T, Mistral", "Whisper, Llama", "SeamlessM4T, Llama", "Whisper, Mistral, labels inside"],
)
def test_parameters_are_the_papers(encoder_dim: int, vocab_size: int, options: dict[str, int], parameters: int):
    """Inside, those of Base and of the labels, from the layers' width."""
    with torch.device("meta"):
        adapter = CTC(encoder_dim, 4096, vocab_size, 0, **options)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters
