"""Every encoder in the table keeps the promises, alone and in front of every adapter; broken ones are caught."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import contract
import numpy as np
import pytest
import tiny
import torch
from mutants import DeafAtTheEnd, LeavesPadding, PeaksOverTheBatch, TrustsPadding
from torch import nn

from stapes.adapters import ADAPTERS
from stapes.adapters.stack_mlp import StackMLP
from stapes.decoding.longform import recognise
from stapes.encoders import ENCODERS, Encoder
from stapes.encoders.moonshine import MoonshineEncoder
from stapes.encoders.ssl import SSLEncoder
from stapes.encoders.toy import ToyEncoder
from stapes.errors import AudioError
from stapes.llms.toy import ToyLLM
from stapes.model import SpeechLLM, Targets
from stapes.recipe import Decoding
from stapes.tasks.asr import ASR
from stapes.types import Audio, Padded

# Members that run without pretrained weights; these are replaced by the folder of the random model of that kind (tiny.py).
CONFIGS = {
    "toy": {"name": "toy", "dim": 12},
    "whisper": {"name": "whisper", "weights": "whisper"},
    "whisper 30s": {"name": "whisper", "weights": "whisper", "window": "30s"},
    "whisper weighted": {"name": "whisper", "weights": "whisper", "layer": "weighted"},
    **{f"ssl {kind}": {"name": "ssl", "weights": kind} for kind in tiny.KINDS if kind.startswith(("wav", "hubert"))},
    "ssl weighted": {"name": "ssl", "weights": "wavlm-large", "layer": "weighted"},
    "seamless": {"name": "seamless", "weights": "seamless"},
    "seamless weighted": {"name": "seamless", "weights": "seamless", "layer": "weighted"},
    "moonshine": {"name": "moonshine", "weights": "moonshine"},
    "moonshine -2": {"name": "moonshine", "weights": "moonshine", "layer": -2},
    "auto w2v-bert": {"name": "auto", "weights": "w2v-bert"},
    "auto wav2vec2": {"name": "auto", "weights": "wav2vec2-base", "layer": "weighted"},
}
IN_PAIRS = (
    "toy",
    "whisper",
    "whisper 30s",
    "ssl wav2vec2-base",
    "ssl hubert-large",
    "ssl wavlm-large",
    "seamless",
    "moonshine",
    "auto w2v-bert",
)
# These rely on the zeros that ``Audio`` promises behind each waveform; the others take anything there.
RELY_ON_ZEROS = ("toy", "whisper", "whisper 30s", "whisper weighted", "ssl wavlm-base", "moonshine", "moonshine -2")


def test_every_member_is_tested():
    assert {config["name"] for config in CONFIGS.values()} == set(ENCODERS)
    assert {CONFIGS[name]["name"] for name in IN_PAIRS} == set(ENCODERS)


@pytest.fixture(scope="module")
def build(tiny_encoder: Callable[[str], Path]) -> Callable[..., Encoder]:
    """build(name, folder): the encoder of that name in ``CONFIGS``, of other weights if there is a folder of them."""

    def make(name: str, folder: Path | None = None) -> Encoder:
        config = dict(CONFIGS[name])
        if "weights" in config:
            config["weights"] = f"path:{folder or tiny_encoder(config['weights'])}"
        return ENCODERS.build(config).eval()

    return make


@pytest.mark.parametrize("check", contract.ENCODER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_encoder(build: Callable[[str], Encoder], name: str, check: Callable[[Encoder], None]):
    check(build(name))


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - set(RELY_ON_ZEROS)))
@torch.no_grad()
def test_garbage_behind_a_waveform(build: Callable[[str], Encoder], name: str):
    contract.waveform_padding_is_inert(build(name), garbage=(torch.nan, torch.inf, 0.7))


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "weights" in config])
@torch.no_grad()
def test_what_is_saved_is_the_encoder(build: Callable[..., Encoder], name: str, tmp_path: Path):
    contract.saved_state_is_whole(partial(build, name), tmp_path / "saved")


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_longer_than_the_window_is_refused(build: Callable[[str], Encoder], name: str):
    encoder = build(name)
    samples = np.zeros(int(encoder.max_seconds * 16_000) + 160, dtype=np.float32)
    with pytest.raises(AudioError, match=r"30\.01 s of audio, expected at most 30 s"):
        encoder(Audio.from_arrays([samples, samples[:16_000]]))


@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_says_what_it_is(build: Callable[[str], Encoder], name: str):
    encoder = build(name)
    assert encoder.digest
    assert encoder.digest == build(name).digest
    assert encoder.window == CONFIGS[name].get("window", "none")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_and_an_answer_with_an_llm(build: Callable[[str], Encoder], name: str):
    encoder, llm = build(name), ToyLLM()
    adapter = StackMLP(encoder.dim, llm.dim, stride=3, hidden_dim=16)
    model = SpeechLLM(encoder, adapter, llm, [ASR()]).eval()
    sounds = contract.sounds((0.5, 1.23))
    targets = Targets([model.answer("a"), model.answer("b c")])
    before = model(model.encode(Audio.from_arrays(sounds)), targets, {"next_token": 1.0})["next_token"]
    before.backward()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter -= 1e-3 * parameter.grad / parameter.grad.norm()
    assert model(model.encode(Audio.from_arrays(sounds)), targets, {"next_token": 1.0})["next_token"] < before
    transcripts = recognise(model, sounds, Decoding(tokens_per_second=4, tokens_spare=2))
    assert [len(transcript.segments) for transcript in transcripts] == [1, 1]


@pytest.mark.parametrize("check", contract.PAIR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", IN_PAIRS)
@torch.no_grad()
def test_every_pair(build: Callable[[str], Encoder], name: str, adapter: str, check: Callable[..., None]):
    torch.manual_seed(0)
    encoder = build(name)
    configs = [{"name": adapter} | options for options in contract.VARIANTS.get(adapter, [{}])]
    if check is contract.pair_hears_the_end:
        configs = [config for config in configs if not contract.may_leave_its_end_out(config)]
    adapters = [contract.build_adapter(config, encoder.dim, encoder.seconds_per_frame) for config in configs]
    check(encoder, *(contract.awake(each) for each in adapters))


# -- mutants -----------------------------------------------------------------------------------------------------------


class DropsTheTail(ToyEncoder):
    """Leaves out the samples that do not fill a frame."""

    def forward(self, audio: Audio) -> Padded:
        whole = self.output_lengths(audio.lengths)
        return super().forward(Audio(audio.samples[:, : 320 * int(whole.max())], 320 * whole))

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        return lengths // 320


class CountsWholeFrames(ToyEncoder):
    """Promises a frame less than it gives where the last one is not full."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values, -(-audio.lengths // 320))

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        return (lengths // 320).clamp(min=1)


class NamesTheWrongRate(ToyEncoder):
    """Gives 50 frames a second and says 25."""

    seconds_per_frame = 0.04


class ReadsOn(ToyEncoder):
    """Adds the loudness of all that it was given, zeros behind the longest waveform included."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values + audio.samples.abs().mean(1)[:, None, None], found.lengths).zero_padding()


class CountsInBfloat16(ToyEncoder):
    """Adds positions that are counted in autocast's precision: beyond 256, neighbours share one."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        steps = torch.arange(found.values.shape[1]).to(dtype).float()
        return Padded(found.values + 3 * steps.sin()[:, None], found.lengths).zero_padding()


class CountsInItsOwnPrecision(ToyEncoder):
    """Adds positions that are counted in the precision of its weights, right as long as these are in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.step = nn.Parameter(torch.ones(()))

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        steps = torch.arange(found.values.shape[1]).to(self.step.dtype).float()
        return Padded(found.values + 3 * steps.sin()[:, None], found.lengths).zero_padding()


class CutsTheGradient(ToyEncoder):
    """Has a gain that no gradient reaches."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values * self.gain.detach(), found.lengths)


MUTANTS = [
    (PeaksOverTheBatch, contract.encoded_alike_in_a_batch),
    (NamesTheWrongRate, contract.frame_counts_are_exact),
    (CountsWholeFrames, contract.frame_counts_are_exact),
    (DropsTheTail, contract.all_sound_is_heard),
    (DeafAtTheEnd, contract.all_sound_is_heard),
    (LeavesPadding, contract.encoder_padding_is_zero),
    (ReadsOn, contract.waveform_padding_is_inert),
    (CountsInBfloat16, contract.encoder_in_half_precision_is_close),
    (CountsInItsOwnPrecision, contract.encoder_in_half_precision_is_close),
    (CutsTheGradient, contract.encoder_parameters_learn),
]


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda part: getattr(part, "__name__", ""))
def test_mutant_is_caught(mutant: type[Encoder], check: Callable[[Encoder], None]):
    with pytest.raises(AssertionError):
        check(mutant(dim=12))


class SavesWhatItCameFrom(MoonshineEncoder):
    """Writes the weights that it was opened with, whatever has become of them."""

    def save(self, folder: Path) -> None:
        shutil.copytree(self.source.removeprefix("path:"), folder)


class SavesNoSettings(SSLEncoder):
    """Writes a preprocessor of the usual settings, whatever the checkpoint's own are."""

    def save(self, folder: Path) -> None:
        self.features = type(self.features)()
        super().save(folder)


@pytest.mark.parametrize(("mutant", "kind"), [(SavesWhatItCameFrom, "moonshine"), (SavesNoSettings, "wavlm-base")])
@torch.no_grad()
def test_what_is_not_saved_is_missed(tiny_encoder: Callable[[str], Path], mutant: type[Encoder], kind: str, tmp_path: Path):
    with pytest.raises(AssertionError):
        contract.saved_state_is_whole(lambda folder: mutant(f"path:{folder or tiny_encoder(kind)}"), tmp_path / "saved")


@torch.no_grad()
def test_a_broken_pair_is_caught():
    """Either of the two would do beside a sound one: padding that is not zero, and an adapter that takes it for granted."""
    torch.manual_seed(0)
    leaves, trusts = LeavesPadding(dim=12), contract.awake(TrustsPadding(12, contract.LLM_DIM, stride=3, hidden_dim=24))
    contract.pair_is_invariant(ToyEncoder(dim=12), trusts)
    contract.pair_is_invariant(leaves, contract.awake(contract.build_adapter({"name": "stack_mlp", "hidden_dim": 24})))
    with pytest.raises(AssertionError):
        contract.pair_is_invariant(leaves, trusts)
    with pytest.raises(AssertionError):
        contract.pair_hears_the_end(DeafAtTheEnd(dim=12), contract.awake(contract.build_adapter({"name": "stack_mlp"})))


def test_every_check_has_caught_a_mutant():
    assert {check for _, check in MUTANTS} == set(contract.ENCODER_CHECKS)
