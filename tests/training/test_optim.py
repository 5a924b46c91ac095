"""Learning rates, decay and averages."""

import math
from collections.abc import Callable

import pytest
import torch

from stapes import lora
from stapes.model import SpeechLLM
from stapes.recipe import Train
from stapes.training import optim


def test_rates_and_decay_by_part(toy_model: Callable[..., SpeechLLM]):
    model = toy_model()
    lora.set_trainable(model, ["adapter", "ctc", "llm", "llm.lora"])
    train = Train(learning_rate=0.5, lora_learning_rate=0.25, full_learning_rate=0.125, weight_decay=0.1)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optim.optimizer(model, train).param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        rate = 0.25 if ".lora_" in name else 0.125 if name.startswith("llm.") else 0.5
        expected = (rate, 0.1 if parameter.dim() > 1 else 0.0) if parameter.requires_grad else None
        assert found.get(id(parameter)) == expected, name


@pytest.mark.parametrize(("warmup", "steps"), [(4, 20), (0, 20), (50, 20), (4, 1)])
def test_the_rate_rises_and_falls(warmup: int, steps: int):
    """Linear to the peak, then half a cosine; a warm-up longer than half of the steps is cut to that."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = optim.schedule(optimizer, Train(warmup_steps=warmup, final_ratio=0.1), steps)
    rates = []
    for _ in range(steps + 1):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    rise = min(warmup, steps // 2)
    for step, rate in enumerate(rates):
        if step < rise:
            expected = 2.0 * (step + 1) / rise
        else:
            expected = 2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2)
        assert rate == pytest.approx(expected)
    assert rates[-1] == pytest.approx(0.2)


def test_the_average_follows_and_forgets_its_start():
    average = optim.Average({"w": torch.tensor([100.0])}, decay=0.9)
    expected, values = 100.0, [float(step % 3) for step in range(200)]
    for step, value in enumerate(values, 1):
        average.update({"w": torch.tensor([value])})
        decay = min(0.9, step / (step + 9))
        expected = decay * expected + (1 - decay) * value
        assert float(average.state["w"]) == pytest.approx(expected, rel=1e-4)
    assert float(average.state["w"]) == pytest.approx(1.0, abs=0.2)


def test_the_average_is_a_copy():
    weights = {"w": torch.zeros(2)}
    average = optim.Average(weights, decay=0.5)
    weights["w"] += 1
    assert not average.state["w"].any()
