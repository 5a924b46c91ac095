import numpy as np
import pytest
import torch

from stapes.audio import Augmentation, add_noise, apply, speed
from stapes.audio import mask_features as mask_batch
from stapes.errors import AudioError, RecipeError
from stapes.types import Padded

RATE = 16_000


def random(seed=0):
    return np.random.default_rng(seed)


def tone(hz, seconds=2.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch_together(factor):
    found = speed(tone(1000), factor)
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(2 * RATE / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert np.argmax(spectrum) * RATE / len(found) == pytest.approx(1000 * factor, abs=1)
    assert found.std() == pytest.approx(tone(1000).std(), rel=0.01)


def test_speed_one_changes_nothing():
    assert np.array_equal(speed(tone(300), 1.0), tone(300))


def test_impossible_speed():
    with pytest.raises(AudioError, match="factor 0"):
        speed(tone(300), 0.0)


@pytest.mark.parametrize("noise_seconds", [0.01, 1.3, 2.0, 7.0])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5])
def test_noise_stands_at_the_ratio_asked_for(noise_seconds, snr_db):
    speech = tone(440)
    noise = random(1).standard_normal(round(noise_seconds * RATE)).astype(np.float32)
    mixed = add_noise(speech, noise, snr_db, random())
    added = mixed.astype(np.float64) - speech
    assert mixed.shape == speech.shape and mixed.dtype == np.float32
    assert 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.01)


def test_noise_comes_from_a_random_place_that_the_seed_decides():
    speech, ramp = tone(440), np.linspace(0.1, 1.0, 10 * RATE, dtype=np.float32)
    places = [add_noise(speech, ramp, 0.0, random(seed)) for seed in (0, 0, 1, 2)]
    assert np.array_equal(places[0], places[1])
    assert not np.allclose(places[0], places[2]) and not np.allclose(places[2], places[3])


def test_noise_leaves_its_sources_alone_and_silence_silent():
    speech, noise = tone(440), tone(50, 0.5)
    add_noise(speech, noise, 3.0, random())
    assert np.array_equal(speech, tone(440)) and np.array_equal(noise, tone(50, 0.5))
    assert not add_noise(np.zeros(100, np.float32), noise, 3.0, random()).any()
    assert np.array_equal(add_noise(speech, np.zeros(100, np.float32), 3.0, random()), speech)
    with pytest.raises(AudioError, match="no samples"):
        add_noise(speech, np.zeros(0, np.float32), 3.0, random())


def test_the_seed_decides_everything():
    config, noises = Augmentation(noise_probability=0.7), [random(5).standard_normal(9000).astype(np.float32), tone(77)]
    for seed in range(8):
        assert np.array_equal(apply(tone(440), random(seed), config, noises), apply(tone(440), random(seed), config, noises))
    assert len({apply(tone(440), random(seed), config, noises).tobytes() for seed in range(8)}) > 4


def test_every_speed_and_the_share_of_noise_are_drawn():
    config, speech = Augmentation(speeds=(0.9, 1.0, 1.1), noise_probability=0.25), tone(440, 0.1)
    drawn = [apply(speech, random(seed), config, [tone(77)]) for seed in range(300)]
    clean = {factor: speed(speech, factor) for factor in config.speeds}
    counts = [sum(len(found) == len(clean[factor]) for found in drawn) for factor in config.speeds]
    assert sum(counts) == 300 and all(70 < count < 130 for count in counts)
    noisy = sum(not any(np.array_equal(found, one) for one in clean.values()) for found in drawn)
    assert 50 < noisy < 100


def test_without_clips_there_is_no_noise():
    config = Augmentation(speeds=(1.0,), noise_probability=1.0)
    assert np.array_equal(apply(tone(440), random(), config), tone(440))


@pytest.mark.parametrize(
    "wrong", [{"speeds": ()}, {"speeds": (0.0,)}, {"noise_probability": 1.5}, {"snr_db": (20.0, 5.0)}, {"snr_db": (1.0,)}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Augmentation(**wrong)


def mask_features(values, rng, **options):
    return mask_batch(Padded(values[None], torch.tensor([len(values)])), [rng], **options).values[0]


def test_masks_of_an_utterance_do_not_depend_on_its_neighbours():
    rows = [torch.randn(frames, 64) for frames in (200, 90, 1)]
    masked = mask_batch(Padded.from_rows(rows), [random(seed) for seed in range(3)])
    for seed, (row, found) in enumerate(zip(rows, masked.rows(), strict=True)):
        assert torch.equal(found, mask_features(row, random(seed)))


def test_masks_are_zero_and_all_else_stays():
    values = torch.randn(200, 64) + 10
    before = values.clone()
    masked = mask_features(values, random(3))
    assert torch.equal(values, before) and masked.shape == values.shape
    assert 0 < (masked == 0).sum() < values.numel()
    assert torch.equal(masked[masked != 0], values[masked != 0])
    rows, columns = (masked == 0).all(dim=1), (masked == 0).all(dim=0)
    assert torch.equal(masked == 0, rows[:, None] | columns[None, :])


def test_masks_follow_the_seed():
    values = torch.ones(200, 64)
    assert torch.equal(mask_features(values, random(3)), mask_features(values, random(3)))
    assert len({mask_features(values, random(seed)).numpy().tobytes() for seed in range(10)}) == 10


def test_mask_widths_reach_their_bounds_and_no_further():
    options = {"time_masks": 1, "max_time_frames": 12, "max_time_ratio": 0.05, "feature_masks": 1, "max_feature_width": 6}
    for frames, longest in [(100, 5), (1000, 12)]:
        masked = [mask_features(torch.ones(frames, 40), random(seed), **options) == 0 for seed in range(300)]
        assert max(int(mask.all(dim=1).sum()) for mask in masked) == longest
        assert max(int(mask.all(dim=0).sum()) for mask in masked) == 6
        assert min(int(mask.sum()) for mask in masked) == 0


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 50])
def test_at_least_half_of_each_axis_is_left(frames):
    for seed in range(100):
        masked = mask_features(torch.ones(frames, 8), random(seed), time_masks=50, max_time_ratio=1.0, feature_masks=50)
        assert (masked != 0).any(dim=1).sum() >= frames - frames // 2
        assert not frames or (masked != 0).any(dim=0).sum() >= 4


def test_masking_keeps_precision_and_gradients():
    values = torch.ones(60, 16, dtype=torch.bfloat16, requires_grad=True)
    masked = mask_features(values, random(1))
    masked.sum().backward()
    assert masked.dtype == torch.bfloat16
    assert torch.equal(values.grad != 0, masked != 0)
