"""``stapes transcribe``: sound files to text, JSON or subtitles."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from stapes.cli import options
from stapes.errors import AudioError, RecipeError
from stapes.registry import nearest

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from stapes.api import Stapes
    from stapes.decoding.longform import Transcript

STDIN = "-"
COLOURS = {  # of the combined tags; raw ones are white
    "PERSON": "green",
    "PLACE": "cyan",
    "ORG": "magenta",
    "NORP": "yellow",
    "LAW": "red",
    "QUANT": "blue",
    "WHEN": "bright_yellow",
}
SUBTITLES = ("srt", "vtt")
CHUNK_BATCHES = 8  # batches of sound in memory at once: enough to sort by length, little to hold


def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Sound files, patterns, folders, or - for standard input.", show_default=False),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help=options.MODEL_HELP)] = "stapes-base",
    task: options.Task = None,
    style: options.Style = "spoken",
    to: options.To = None,
    form: Annotated[str, typer.Option("--format", "-f", help="text, json, srt or vtt.")] = "text",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    batch_seconds: options.BatchSeconds = 120.0,
    beams: options.Beams = None,
    ctc_weight: options.CTCWeight = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file for everything, or a folder (it ends in / or is there) for a file each."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Transcribe sound files of any format and length.

    Results go to standard output, all else to standard error. The text of a single file is printed as it is, that of several
    as "file: text", in their order. A file that cannot be read is reported, the others go on, and the exit status is 2.

    Examples:

    \b
      stapes transcribe talk.wav
          only the text, on standard output
    \b
      stapes transcribe recordings/*.mp3 interviews/ -o texts/
          a text file for each sound file; of a folder, every .wav, .flac, .mp3, .m4a and the like below it, at the same place
    \b
      stapes transcribe lecture.mp4 --format srt > lecture.srt
          subtitles; a sound of any length, cut at its pauses
    \b
      ffmpeg -i stream.ts -f wav - | stapes transcribe - --format json
          sound from standard input; JSON is one object a line
    \b
      stapes transcribe speech.wav --task ner
          the text with its named entities, in colour on a terminal, else in brackets
    \b
      stapes transcribe talk.wav --style written
          with capitals, punctuation and digits
    \b
      stapes transcribe talk.wav --model runs/mine --beams 4 --device cuda
          a model of one's own, beam search, on a GPU
    """
    from stapes.decoding.formats import FORMATS

    if form not in FORMATS:
        raise RecipeError("--format", f"'{form}'", fix=nearest(form, FORMATS))
    expanded = expand(files)
    names = [name for name, _ in expanded]
    speech: Stapes | None = None
    failed = False
    with _Output(expanded, form, output) as results, options.Bar("transcribing", len(names), quiet) as bar:
        for chunk in _chunks(names, CHUNK_BATCHES * batch_seconds):
            sounds = [sound for _, sound in chunk if not isinstance(sound, AudioError)]
            if sounds and speech is None:
                with bar.aside():
                    speech = options.load_model(model, device, dtype, beams, ctc_weight)
                    key = speech.find_task(task, style, to)
                    if form in SUBTITLES and not speech.module.tasks[key].has_words:
                        raise RecipeError("--format", f"{form} for '{key}', whose answers have no words", "text or json")
            asked = {"task": task, "style": style, "to": to}
            found = iter(_recognise(speech, sounds, asked, batch_seconds, bar) if speech is not None else [])
            with bar.aside():
                for name, sound in chunk:
                    if isinstance(sound, AudioError):
                        failed = True
                        options.warn(f"error: {sound}")
                    else:
                        results.write(name, next(found))
    if failed:
        raise typer.Exit(2)


def expand(files: list[str]) -> list[tuple[str, Path]]:
    """What the names on the command line stand for: patterns and folders become the files that they hold, sorted.

    Returns:
        Each file with its path below the folder that was given, which is its name alone where no folder was.

    Raises:
        AudioError: a folder without a sound file.
    """
    from stapes.data.corpora.base import audio_files

    found: list[tuple[str, Path]] = []
    for name in files:
        path = Path(name).expanduser()
        if path.is_dir():
            within = [(str(file), file.relative_to(path)) for file in audio_files(path)]
            if not within:
                raise AudioError(name, "no sound file in this folder")
            found += within
        elif name == STDIN or path.exists() or not glob.has_magic(name):
            found.append((name, Path("stdin" if name == STDIN else path.name)))
        else:
            # A pattern that matches nothing stays as it is, and is then reported as a file that is not there.
            matches = sorted(glob.glob(str(path), recursive=True)) or [name]  # noqa: PTH207 (absolute patterns too)
            found += [(match, Path(Path(match).name)) for match in matches]
    return found


def _chunks(names: list[str], seconds: float) -> Iterator[list[tuple[str, np.ndarray | AudioError]]]:
    """Names with their samples, or why there are none, in stretches of about ``seconds`` of sound."""
    from stapes import audio
    from stapes.types import SAMPLE_RATE_HZ

    chunk: list[tuple[str, np.ndarray | AudioError]] = []
    gathered = 0
    for name in names:
        try:
            samples = audio.read(sys.stdin.buffer if name == STDIN else name)
        except AudioError as error:
            chunk.append((name, error))
            continue
        chunk.append((name, samples))
        gathered += len(samples)
        if gathered >= seconds * SAMPLE_RATE_HZ:
            yield chunk
            chunk, gathered = [], 0
    if chunk:
        yield chunk


def _recognise(
    speech: Stapes, sounds: list[np.ndarray], asked: dict[str, Any], batch_seconds: float, bar: options.Bar
) -> list[Transcript]:
    from stapes.types import SAMPLE_RATE_HZ

    files_per_second = len(sounds) * SAMPLE_RATE_HZ / max(1, sum(map(len, sounds)))
    with options.only_results_on_stdout():
        return speech.transcribe(
            list(sounds),
            **asked,
            batch_seconds=batch_seconds,
            on_progress=lambda seconds: bar.advance(seconds * files_per_second),
        )


class _Output:
    """Where transcripts go: standard output, one file, or a file for each in a folder.

    Raises:
        RecipeError: it cannot be written, or several transcripts would be one file of subtitles.
    """

    def __init__(self, files: list[tuple[str, Path]], form: str, output: str | None) -> None:
        from stapes.decoding.formats import SUFFIXES

        self.form, self.named = form, form == "text" and len(files) > 1
        self.paths: dict[str, Path] = {}
        self.file: TextIO = sys.stdout
        try:
            if output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir()):
                self.paths = _paths(files, Path(output), SUFFIXES[form])
                for folder in {path.parent for path in self.paths.values()}:
                    folder.mkdir(parents=True, exist_ok=True)
            elif form in SUBTITLES and len(files) > 1:
                raise RecipeError("--format", f"{form} for {len(files)} files", "one file", "write each to its own: -o FOLDER/")
            elif output is not None:
                Path(output).parent.mkdir(parents=True, exist_ok=True)
                self.file = Path(output).open("w", encoding="utf-8")  # noqa: SIM115 (closed with this object)
        except OSError as error:
            raise RecipeError("--output", f"{output} cannot be written ({error.strerror})") from error

    def write(self, name: str, transcript: Transcript) -> None:
        """Write the transcript of ``name``."""
        from stapes.decoding.formats import render

        if transcript.capped:
            options.warn(f"warning: {name}: the model wrote more than can be said in this time; the text was cut off")
        text = render(transcript, self.form, name)
        if name in self.paths:
            self.paths[name].write_text(text + "\n", encoding="utf-8")
        elif self.form == "text" and transcript.entities and self.file is sys.stdout and (console := _in_colour()):
            _print_coloured(console, transcript, name if self.named else "")
        else:
            print(f"{name}: {text}" if self.named else text, file=self.file, flush=True)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not sys.stdout:
            self.file.close()


def _in_colour() -> Console | None:
    """Standard output, where it shows colours: a terminal that has not been told otherwise (NO_COLOR, FORCE_COLOR)."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.color_system is not None and not console.no_color else None


def _print_coloured(console: Console, transcript: Transcript, name: str) -> None:
    """Print entities in colour, each followed by its tag."""
    from rich.text import Text

    from stapes.decoding.formats import parts

    line = Text(f"{name}: " if name else "")
    for text, label in parts(transcript):
        line.append(text, None if label is None else f"bold {COLOURS.get(label, 'white')}")
        if label is not None:
            line.append(f" {label}", f"dim {COLOURS.get(label, 'white')}")
    console.print(line)


def _paths(files: list[tuple[str, Path]], folder: Path, suffix: str) -> dict[str, Path]:
    """A file in ``folder`` for each name, below it as it was found; raises RecipeError where two would be the same."""
    paths: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for name, below in files:
        path = folder / below.with_name(below.stem + suffix)
        if owners.setdefault(path, name) != name:
            raise RecipeError("--output", f"{owners[path]} and {name} would both be written to {path}", "names that differ")
        paths[name] = path
    return paths
