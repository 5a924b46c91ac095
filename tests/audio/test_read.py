import io
import math
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stapes.audio import duration_seconds, read, resample
from stapes.errors import AudioError


@pytest.fixture()
def wav(tmp_path, chirp):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(), 16_000, subtype="FLOAT")
    return path


def test_path_string_bytes_and_files_give_the_same(wav, chirp):
    content = wav.read_bytes()
    with wav.open("rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(content)
        spooled.seek(0)
        sources = [wav, str(wav), content, bytearray(content), memoryview(content), io.BytesIO(content), file, spooled]
        for source in sources:
            assert np.array_equal(read(source), chirp())


def test_home_folder_is_understood(wav, monkeypatch, chirp):
    monkeypatch.setenv("HOME", str(wav.parent))
    assert np.array_equal(read("~/a.wav"), chirp())


def test_file_object_that_cannot_seek(wav, chirp):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.content = io.BytesIO(wav.read_bytes())

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.content.readinto(buffer)

    assert np.array_equal(read(Pipe()), chirp())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe(wav, tmp_path, chirp):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(wav.read_bytes()))
    writer.start()
    assert np.array_equal(read(tmp_path / "pipe"), chirp())
    writer.join()


def test_array_at_16_khz_comes_back_unchanged(chirp):
    for source in (chirp(), chirp().astype(np.float64), torch.from_numpy(chirp())):
        found = read(source)
        assert found.dtype == np.float32 and np.array_equal(found, chirp())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
def test_integers_are_scaled_by_their_range(chirp, dtype):
    limits = np.iinfo(dtype)
    half = (limits.max - limits.min + 1) / 2
    stored = (np.rint(chirp().astype(np.float64) * (half - 1)) + (limits.max + limits.min + 1) // 2).astype(dtype)
    assert np.abs(read(stored) - chirp()).max() < 2 / half + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16])
def test_tensors_of_other_types(chirp, dtype):
    scale = 32767 if dtype == torch.int16 else 1
    found = read((torch.from_numpy(chirp()) * scale).to(dtype))
    assert np.abs(found - chirp()).max() < 4e-3


def test_array_channels_are_averaged_along_either_axis(chirp):
    both = np.stack([chirp(), np.roll(chirp(), 7)])
    expected = (both[0] + both[1]) / 2
    assert np.allclose(read(both), expected, atol=1e-7)
    assert np.allclose(read(both.T), expected, atol=1e-7)
    assert np.allclose(read(chirp()[None]), chirp())


def test_array_of_another_rate_and_a_stretch_of_it(chirp):
    found = read(chirp(44_100), sample_rate=44_100, start=1.0, duration=1.5)
    assert len(found) == 1.5 * 16_000
    assert np.abs(found - chirp()[16_000:40_000])[200:-200].max() < 2e-3


def test_source_array_is_not_modified(chirp):
    source = chirp()
    read(source)
    assert np.array_equal(source, chirp())


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros(1000, np.float32), "silent"),
        (np.full(1000, 1e-6, np.float32), "silent"),
        (np.array([0.1, np.nan, 0.2]), "NaN or infinite"),
        (np.array([0.1, np.inf, 0.2]), "NaN or infinite"),
        (np.array([1e300, 0.1]), "NaN or infinite"),
        (np.array([20_000.0, -3.0]), "full scale"),
        (np.zeros((4, 4)), "which axis is time"),
        (np.zeros((40, 40)), "which axis is time"),
        (np.zeros((1, 2, 3)), "cannot be read"),
        (np.array(0.5), "cannot be read"),
        (np.array([1, 2, 3], dtype=np.int64), "int64"),
        (np.array([1j]), "complex"),
        (np.array(["a"]), "type"),
    ],
)
def test_arrays_that_cannot_be_used(array, expected):
    with pytest.raises(AudioError, match=expected) as error:
        read(array)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, -16_000, 10, 10**9])
def test_impossible_rates(chirp, rate):
    with pytest.raises(AudioError, match="sample rate"):
        read(chirp(), sample_rate=rate)


def test_a_file_is_not_told_its_rate(wav):
    with pytest.raises(AudioError, match="arrays only"):
        read(wav, sample_rate=8000)


def test_silence_may_be_allowed():
    assert not read(np.zeros(1000, np.float32), allow_silent=True).any()


def test_silent_file(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(16_000), 16_000)
    with pytest.raises(AudioError, match=r"a\.flac: silent"):
        read(tmp_path / "a.flac")
    assert len(read(tmp_path / "a.flac", allow_silent=True)) == 16_000


def test_file_with_nan(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.1, np.nan, 0.2] * 100), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("use", [read, duration_seconds])
def test_paths_that_cannot_be_read(tmp_path, use):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound\n" * 500)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(50_000))
    expected = {
        tmp_path / "missing.wav": "no such file",
        tmp_path: "is a folder",
        tmp_path / "empty.wav": "empty file",
        tmp_path / "text.wav": "cannot be decoded",
        tmp_path / "noise.mp3": "cannot be decoded",
        Path("a\0b.wav"): "null byte",
        Path("x" * 5000): "name too long",
    }
    for path, message in expected.items():
        with pytest.raises(AudioError, match=f"(?i){message}") as error:
            use(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_bytes_and_objects_that_cannot_be_read():
    for source, message in [
        (b"", "no bytes"),
        (b"RIFF", "cannot be decoded"),
        (io.StringIO("a"), "gives str"),
        (7, "gives int"),
    ]:
        with pytest.raises(AudioError, match=message):
            read(source)


def test_wav_without_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16_000)
    for use in (read, duration_seconds):
        with pytest.raises(AudioError, match="no samples"):
            use(tmp_path / "a.wav")


@pytest.mark.parametrize("start, duration", [(4.0, None), (4.5, 1.0), (3.0, 1.5)])
@pytest.mark.parametrize("kind", ["file", "array"])
def test_stretch_beyond_the_end(wav, chirp, kind, start, duration):
    with pytest.raises(AudioError, match="beyond its end"):
        read(wav if kind == "file" else chirp(), start=start, duration=duration)


def test_stretch_may_be_rounded_up_beyond_the_end(wav):
    assert len(read(wav, start=3.0, duration=1.05)) == 16_000


@pytest.mark.parametrize("start, duration", [(-1.0, None), (float("nan"), None), (0.0, 0.0), (0.0, -1.0), (0.0, float("inf"))])
def test_stretches_that_make_no_sense(wav, start, duration):
    with pytest.raises(AudioError, match=r"(start|duration) is"):
        read(wav, start=start, duration=duration)


def test_resampling_keeps_what_fits_and_removes_what_does_not():
    time = np.arange(48_000) / 48_000
    for hz, expected in [(1000, 1.0), (7000, 1.0), (8200, 0.0), (9000, 0.0), (20_000, 0.0)]:
        found = resample(np.sin(2 * np.pi * hz * time).astype(np.float32), 48_000, 16_000)[400:-400]
        assert found.dtype == np.float32
        assert np.sqrt(2 * np.mean(found**2)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("rate", [8000, 11_025, 15_999, 44_100, 96_000])
def test_resampled_length(rate):
    assert len(resample(np.ones(12_345, np.float32), rate, 16_000)) == -(-12_345 * 16_000 // rate)


@pytest.mark.parametrize("rates", [(48_000, 16_000), (8_000, 16_000), (44_100, 16_000), (11_025, 16_000), (9, 10), (11, 10)])
@pytest.mark.parametrize("count", [1, 7, 5_000, 12_345])
def test_resampling_is_scipys(rates: tuple[int, int], count: int):
    from scipy.signal import firwin, kaiser_beta, resample_poly

    divisor = math.gcd(*rates)
    down, up = rates[0] // divisor, rates[1] // divisor
    taps = firwin(100 * max(up, down) + 1, 0.95 / max(up, down), window=("kaiser", kaiser_beta(80.0)))
    samples = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    np.testing.assert_allclose(resample(samples, *rates), resample_poly(samples, up, down, window=taps), atol=1e-5)


@pytest.mark.parametrize("rates", [(48_000, 16_000), (9, 10)])
def test_resampling_takes_samples_of_any_layout_wherever_it_is_called(rates: tuple[int, int]):
    samples = np.random.default_rng(0).standard_normal(4_000).astype(np.float32)
    expected = resample(samples, *rates)
    frozen = samples.copy()
    frozen.flags.writeable = False
    layouts = [
        samples.astype(np.float64),
        samples.astype(">f4"),
        samples[::-1].copy()[::-1],
        np.repeat(samples, 2)[::2],
        frozen,
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        for layout in [*layouts, frozen]:
            np.testing.assert_array_equal(resample(layout, *rates), expected)
    assert not len(resample(samples[:0], *rates))


def test_a_rate_without_common_divisor_is_quick_and_right():
    time = np.arange(99_991) / 99_991
    found = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 99_991, 16_000)
    assert len(found) == pytest.approx(16_000, abs=1)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    assert np.abs(found - expected)[400:-400].max() < 2e-3
