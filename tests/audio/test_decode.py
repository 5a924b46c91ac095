import subprocess
import sys
import tarfile

import av
import numpy as np
import pytest
import soundfile

from stapes.audio import duration_seconds, read
from stapes.errors import AudioError

LIBSNDFILE = {
    "u8.wav": "PCM_U8",
    "s16.wav": "PCM_16",
    "s24.wav": "PCM_24",
    "s32.wav": "PCM_32",
    "f32.wav": "FLOAT",
    "f64.wav": "DOUBLE",
    "a.aiff": "PCM_16",
    "a.flac": "PCM_16",
    "vorbis.ogg": "VORBIS",
    "opus.ogg": "OPUS",
    "a.mp3": "MPEG_LAYER_III",
}
FFMPEG = {
    "a.m4a": ("aac", 44_100),
    "sound.mp4": ("aac", 48_000),
    "film.mp4": ("aac", 22_050),
    "mp3.mp4": ("libmp3lame", 44_100),
    "opus.mp4": ("libopus", 48_000),
    "opus.webm": ("libopus", 48_000),
    "a.mkv": ("flac", 16_000),
    "a.aac": ("aac", 16_000),
    "ffmpeg.opus": ("libopus", 48_000),
    "ffmpeg.mp3": ("libmp3lame", 24_000),
    "a.wma": ("wmav2", 44_100),
}
CODEC_DELAY_SECONDS = {"a.aac": 0.15, "a.wma": 0.15}
"""Containers that cannot say how much of the beginning is the encoder's run-up."""


def write_ffmpeg(path, samples, rate, codec, film=False):
    """Encode (channels, N) float32 with FFmpeg, with a moving picture beside it if it is a film."""
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p") if film else None
        track = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            track.codec_context.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(np.rint(samples * 32767).astype(np.int16), format="s16p", layout=layout)
        frame.rate, frame.pts = rate, 0
        for _ in range(50 if film else 0):
            container.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
        if film:
            container.mux(picture.encode(None))
        container.mux(track.encode(frame))
        container.mux(track.encode(None))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, chirp):
    """A folder with the chirp in every container."""
    folder = tmp_path_factory.mktemp("encoded")
    for name, subtype in LIBSNDFILE.items():
        soundfile.write(folder / name, chirp(), 16_000, subtype=subtype)
    for name, (codec, rate) in FFMPEG.items():
        write_ffmpeg(folder / name, chirp(rate)[None], rate, codec, film=name.startswith("film"))
    return folder


def alignment(found, expected, slack):
    """The best correlation of two sounds over shifts of up to ``slack`` samples either way."""
    length = min(len(found), len(expected)) - 2 * slack
    middle = expected[slack : slack + length]
    return max(np.corrcoef(found[shift : shift + length], middle)[0, 1] for shift in range(2 * slack + 1))


@pytest.mark.parametrize("name", [*LIBSNDFILE, *FFMPEG])
def test_every_container_gives_the_sound_that_was_put_in(encoded, chirp, name):
    found, slack = read(encoded / name), round(CODEC_DELAY_SECONDS.get(name, 0.001) * 16_000)
    assert found.dtype == np.float32 and found.ndim == 1
    assert len(found) == pytest.approx(4 * 16_000, abs=0.03 * 16_000 + 2 * slack)
    assert alignment(found, chirp(), slack) > 0.99
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(chirp() ** 2)), rel=0.06)


@pytest.mark.parametrize("name", [*LIBSNDFILE, *FFMPEG])
def test_duration_without_decoding_is_that_of_the_samples(encoded, name):
    assert duration_seconds(encoded / name) == pytest.approx(len(read(encoded / name)) / 16_000, abs=0.05)


@pytest.mark.parametrize("start, duration", [(0.0, 0.5), (1.3, 0.7), (2.9, None)])
@pytest.mark.parametrize("name", [*LIBSNDFILE, *FFMPEG])
def test_a_stretch_is_that_part_of_the_whole(encoded, name, start, duration):
    whole, part = read(encoded / name), read(encoded / name, start=start, duration=duration)
    first = round(start * 16_000)
    expected = whole[first:] if duration is None else whole[first : first + round(duration * 16_000)]
    assert abs(len(part) - len(expected)) <= 1
    inner = slice(100, min(len(part), len(expected)) - 100)  # the resampling filter does not see beyond the stretch
    assert np.abs(part[inner] - expected[inner]).max() < 1e-2


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_every_rate_ends_at_16_khz(tmp_path, chirp, rate):
    soundfile.write(tmp_path / "a.wav", chirp(rate), rate, subtype="FLOAT")
    found = read(tmp_path / "a.wav")
    assert len(found) == 4 * 16_000
    assert np.abs(found - chirp())[200:-200].max() < 2e-3


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.mp4", "a.webm"])
def test_channels_are_averaged(tmp_path, chirp, name):
    hum = 0.3 * np.sin(2 * np.pi * 5000 * np.arange(4 * 48_000) / 48_000)
    channels = np.stack([chirp(48_000), hum])
    if name in ("a.mp4", "a.webm"):
        write_ffmpeg(tmp_path / name, channels, 48_000, "aac" if name == "a.mp4" else "libopus")
    else:
        soundfile.write(tmp_path / name, channels.T, 48_000)
    expected = (chirp() + hum[::3]) / 2
    assert alignment(read(tmp_path / name), expected, 16) > 0.98
    assert read(tmp_path / name).std() == pytest.approx(expected.std(), rel=0.05)


@pytest.mark.parametrize(
    "name", ["s16.wav", "f32.wav", "a.aiff", "a.flac", "vorbis.ogg", "opus.ogg", "a.mp3", "a.m4a", "opus.webm", "a.mkv"]
)
def test_half_a_file_is_refused(encoded, name):
    content = (encoded / name).read_bytes()
    with pytest.raises(AudioError) as error:
        read(content[: len(content) // 2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["s16.wav", "vorbis.ogg", "opus.ogg"])
def test_half_a_file_has_no_duration(encoded, name):
    content = (encoded / name).read_bytes()
    with pytest.raises(AudioError, match="truncated"):
        duration_seconds(content[: len(content) // 2])


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_from_a_pipe_promises_nothing(encoded, chirp, size):
    content = bytearray((encoded / "s16.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    if size == 0:
        with pytest.raises(AudioError, match="no samples"):
            read(bytes(content))
    else:
        assert np.corrcoef(read(bytes(content)), chirp())[0, 1] > 0.999


@pytest.mark.parametrize("name", sorted({*LIBSNDFILE, *FFMPEG}))
def test_damage_gives_an_error_or_a_sound_and_never_a_crash(encoded, name):
    content, rng = (encoded / name).read_bytes(), np.random.default_rng(0)
    for reach in (200, 2000, len(content)):
        for _ in range(4):
            damaged = bytearray(content)
            for at in rng.integers(min(reach, len(content)), size=20):
                damaged[at] = rng.integers(256)
            try:
                assert np.isfinite(read(bytes(damaged))).all()
            except AudioError as error:
                assert "\n" not in str(error)


def test_film_without_sound(tmp_path):
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        picture = container.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        container.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(picture.encode(None))
    with pytest.raises(AudioError, match="no sound in this file"):
        read(tmp_path / "silent.mp4")


def test_unknown_codec(encoded):
    content = (encoded / "opus.webm").read_bytes().replace(b"A_OPUS", b"A_XXXX")
    with pytest.raises(AudioError, match="codec is not supported"):
        read(content)


def test_a_playlist_opens_no_other_file(encoded, tmp_path):
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{encoded / 'a.aac'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError, match="cannot be decoded"):
        read(playlist)


@pytest.fixture(scope="module")
def damaged_collection(tmp_path_factory):
    """Deliberately damaged WAV files from the tests of the PocketSphinx speech recogniser."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        "pocketsphinx",
        "-d",
        folder,
        "pocketsphinx==5.1.1",
    ]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the source distribution of pocketsphinx 5.1.1 did not arrive within 120 s")
    archives = list(folder.glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"cannot fetch the source distribution of pocketsphinx 5.1.1: {finished.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/test/data"))


@pytest.mark.parametrize("name", ["bad.wav", "evil.wav", "awful.wav", "null.wav", "goforward.raw"])
def test_files_damaged_by_hand_are_refused(damaged_collection, name):
    with pytest.raises(AudioError) as error:
        read(damaged_collection / name)
    assert name in str(error.value) and "\n" not in str(error.value)
