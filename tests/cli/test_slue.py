"""`stapes slue`: of a model or of finished evaluations, a table or one JSON object."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

import stapes as package
from stapes import checkpoint, recipe
from stapes.data.manifest import read_manifest, write_manifest
from stapes.training.stages import train

Run = Callable[..., Result]

VOXPOPULI = [
    {"id": "a", "reference": "the eu today", "hypothesis": "the eu to day"}
    | {"reference_entities": [["PLACE", "eu"], ["WHEN", "today"]], "entities": [["PLACE", "eu"], ["WHEN", "to day"]]},
    {"id": "b", "reference": "thank you", "hypothesis": "thank you", "reference_entities": [], "entities": []},
]
VOXCELEB = [
    {
        "id": "a",
        "reference": "i loved it",
        "hypothesis": "i love it",
        "reference_sentiment": "Positive",
        "sentiment": "Positive",
    },
    {"id": "b", "reference": "well", "hypothesis": "well", "reference_sentiment": "mixed", "sentiment": "Negative"},
]


@pytest.fixture
def folders(evaluated: Callable[..., Path]) -> tuple[Path, Path]:
    return evaluated("voxpopuli", VOXPOPULI), evaluated("voxceleb", VOXCELEB)


def of(voxpopuli: Path, *voxceleb: Path) -> list[str | Path]:
    """The options that name a corpus each."""
    return ["--voxpopuli", voxpopuli, *(part for path in voxceleb for part in ("--voxceleb", path))]


def test_json_of_a_case_done_by_hand(stapes: Run, folders: tuple[Path, Path]):
    result = stapes("slue", *of(*folders), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    # Words: 2 errors in 5, and 1 in 4. Entities: 1 of 2, and 1 wrong. Sentiment: Positive 100, Neutral and Negative 0.
    assert found["name"] == "SLUE score"
    assert (found["voxpopuli_wer"], found["voxceleb_wer"]) == (40.0, 25.0)
    assert (found["ner_f1"], found["ner_label_f1"], found["sentiment_f1"]) == (50.0, 100.0, 33.333)
    assert found["slue"] == pytest.approx((67.5 + 50 + 100 / 3) / 3, abs=5e-4)
    assert set(found["intervals"]) == {"slue", "voxpopuli_wer", "voxceleb_wer", "ner_f1", "ner_label_f1", "sentiment_f1"}


def test_a_table_names_synthetic_sound(stapes: Run, folders: tuple[Path, Path]):
    result = stapes("slue", *of(*folders), "--synthetic", "--seed", "1")
    assert result.exit_code == 0, result.stderr
    assert "SLUE score (synthetic VoxCeleb)" in result.stdout
    assert "50.28" in result.stdout
    assert stapes("slue", *of(*folders)).stdout.count("synthetic") == 0


def test_a_corpus_without_labels(stapes: Run, one_line: Callable[[Result], str], folders: tuple[Path, Path]):
    message = one_line(stapes("slue", *of(*folders[::-1]), "--json"))
    assert message.startswith(f"{folders[1]}: 'reference_entities' for 0 of 2 utterances, expected all of them")


# -- of a model --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(task_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(task_run, tmp_path / "run")


@pytest.fixture
def manifests(labelled_tones: Path) -> tuple[Path, Path]:
    return labelled_tones / "slue-voxpopuli/dev.jsonl", labelled_tones / "slue-voxceleb/dev.jsonl"


@pytest.fixture
def synthetic(manifests: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same, the first utterance of each said by a synthesiser."""
    paths = tmp_path / "spoken/slue-voxpopuli/dev.jsonl", tmp_path / "spoken/slue-voxceleb/dev.jsonl"
    for source, path in zip(manifests, paths, strict=True):
        first, *others = read_manifest(source)
        write_manifest(path, [replace(first, synthetic=True), *others])
    return paths


def test_one_command_evaluates_and_computes_and_goes_on_where_it_stood(stapes: Run, run: Path, manifests: tuple[Path, Path]):
    result = stapes("slue", run, *of(*manifests), "--json", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    keys = ("slue-voxpopuli-dev-asr", "slue-voxpopuli-dev-ner", "slue-voxceleb-dev-asr", "slue-voxceleb-dev-sentiment")
    folders = [run / f"evaluation-{key}" for key in keys]
    assert result.stderr == "".join(f"predictions, scores and reports: {folder}\n" for folder in folders)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in folders]
    model = package.load(run, device="cpu")
    assert scores[1] == model.evaluate(manifests[0], task="ner").scores, "as `stapes evaluate` has it"
    assert (found["voxpopuli_wer"], found["voxceleb_wer"]) == (scores[0]["wer"], scores[2]["wer"])
    assert (found["ner_f1"], found["sentiment_f1"]) == (scores[1]["ner_f1"], scores[3]["sentiment_f1"])
    words = (found["voxpopuli_wer"] + found["voxceleb_wer"]) / 2
    assert found["slue"] == pytest.approx((100 - words + found["ner_f1"] + found["sentiment_f1"]) / 3, abs=2e-3)
    assert found["name"] == "SLUE score"

    from_folders = stapes("slue", *of(folders[0], *folders[2:]), "--voxpopuli", folders[1], "--json")
    assert json.loads(from_folders.stdout) == found, from_folders.stderr

    (folders[1] / "scores.json").unlink()  # as one that was interrupted
    again = stapes("slue", run, *of(*manifests), "--json")
    assert json.loads(again.stdout) == found
    assert again.stderr.splitlines() == [
        f"done before: {folders[0]}",
        f"predictions, scores and reports: {folders[1]}",
        f"done before: {folders[2]}",
        f"done before: {folders[3]}",
    ]
    fewer = stapes("slue", run, *of(*manifests), "--limit", "4", "--json")
    assert json.loads(fewer.stdout)["signature"].count("|n:4") == 4
    assert len(list(run.glob("evaluation-*-limit4"))) == len(list(run.glob("evaluation-*-dev-*"))) - 4 == 4
    assert json.loads((folders[0] / "scores.json").read_text()) == scores[0], "those of all utterances are still there"


def test_what_is_there_counts_only_if_it_is_the_same(stapes: Run, run: Path, manifests: tuple[Path, Path], tmp_path: Path):
    command = ("slue", run, "--limit", "2", "--output", tmp_path / "results", "--device", "cpu")
    assert stapes(*command, *of(*manifests)).stderr.count("predictions, scores and reports: ") == 4
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "evaluation-slue-voxceleb-dev-asr-limit2",
        "evaluation-slue-voxceleb-dev-sentiment-limit2",
        "evaluation-slue-voxpopuli-dev-asr-limit2",
        "evaluation-slue-voxpopuli-dev-ner-limit2",
    ]
    assert not list(run.glob("evaluation-*"))
    first, *others = read_manifest(manifests[1])
    other = tmp_path / "slue-voxceleb/dev.jsonl"
    write_manifest(other, [replace(first, sentiment="Positive"), *others])
    changed = stapes(*command, *of(manifests[0], other))
    assert [line.partition(":")[0] for line in changed.stderr.splitlines()] == [
        "done before",
        "done before",
        "predictions, scores and reports",
        "predictions, scores and reports",
    ]
    assert stapes(*command, *of(manifests[0], other), "--ctc-weight", "0").stderr.count("done before") == 0


def test_a_model_that_has_joint_tasks_alone(stapes: Run, manifests: tuple[Path, Path], labelled_tones: Path, tmp_path: Path):
    data = str(labelled_tones / "train.jsonl")
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 16},
            "llm": {"name": "toy"},
            "tasks": [{"name": "asr+ner"}, {"name": "asr+sentiment"}],
            "data": {"train": [{"path": data, "task": key} for key in ("asr+ner", "asr+sentiment")]},
            "train": {"steps": 1, "batch_seconds": 20, "trainable": ["adapter"]},
        }
    )
    run = train(resolved, tmp_path / "joint", "cpu")
    result = stapes("slue", run, *of(*manifests), "--limit", "3", "--json")
    assert result.exit_code == 0, result.stderr
    folders = [run / f"evaluation-{name}-limit3" for name in ("slue-voxpopuli-dev-asr+ner", "slue-voxceleb-dev-asr+sentiment")]
    assert sorted(run.glob("evaluation-*")) == sorted(folders)
    assert json.loads(stapes("slue", *of(*folders), "--json").stdout) == json.loads(result.stdout)


def test_synthetic_sound_is_found_in_the_manifests(
    stapes: Run, run: Path, manifests: tuple[Path, Path], synthetic: tuple[Path, Path]
):
    names = {}
    for voxpopuli, voxceleb in itertools.product((manifests[0], synthetic[0]), (manifests[1], synthetic[1])):
        result = stapes("slue", run, *of(voxpopuli, voxceleb), "--limit", "2", "--json")
        assert result.exit_code == 0, result.stderr
        names[voxpopuli, voxceleb] = json.loads(result.stdout)["name"]
    assert list(names.values()) == [
        "SLUE score",
        "SLUE score (synthetic VoxCeleb)",
        "SLUE score (synthetic VoxPopuli)",
        "SLUE score (synthetic VoxPopuli and VoxCeleb)",
    ]
    keys = ("slue-voxpopuli-dev-ner", "slue-voxceleb-dev-asr", "slue-voxceleb-dev-sentiment")  # of the last, both synthetic
    shown = stapes("slue", *of(*(run / f"evaluation-{key}-limit2" for key in keys))).stdout
    assert "SLUE score (synthetic VoxPopuli and VoxCeleb)" in shown
    assert "WER, synthetic SLUE-VoxPopuli" in shown
    assert "sentiment macro F1, synthetic SLUE-VoxCeleb" in shown


def test_without_a_folder_nothing_is_kept_and_unreadable_sound_is_told(
    stapes: Run, run: Path, manifests: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    first, second, *_ = read_manifest(manifests[0])
    write_manifest(tmp_path / "vp/dev.jsonl", [replace(first, audio=broken), second])
    command = ("slue", run, *of(tmp_path / "vp/dev.jsonl", manifests[1]), "--limit", "2", "--json")
    result = stapes(*command)
    assert result.exit_code == 2
    assert "slue" in json.loads(result.stdout)
    assert result.stderr.count(f"{broken}: ") == 2, "once for words and once for entities"
    assert [line for line in stapes(*command).stderr.splitlines() if line.startswith("done before: ")] == [
        f"done before: {run}/evaluation-slue-voxceleb-dev-{task}-limit2" for task in ("asr", "sentiment")
    ], "what could not be read may be there now"
    monkeypatch.setattr(checkpoint, "MODELS", tmp_path)  # the run as a shipped model
    monkeypatch.chdir(tmp_path.parent)
    before = sorted(run.iterdir())
    assert stapes("slue", "run", *of(*manifests), "--limit", "1", "--json").stderr == ""
    assert sorted(run.iterdir()) == before


def test_what_is_wrong_is_told_before_anything_is_evaluated(
    stapes: Run, one_line: Callable[[Result], str], run: Path, tone_run: Path, manifests: tuple[Path, Path], tmp_path: Path
):
    def message(*arguments: str | Path) -> str:
        return one_line(stapes("slue", *arguments, "--json"))

    voxpopuli, voxceleb = manifests
    assert message(run, "--voxpopuli", voxpopuli) == "--voxceleb: given 0 times, expected a manifest"
    twice = message(run, *of(voxpopuli, voxceleb, voxceleb))
    assert twice == "--voxceleb: given 2 times, expected a manifest"
    assert message("--voxpopuli", run) == "--voxceleb: given 0 times, expected one or two folders of `stapes evaluate`"
    assert message(*of(run, run), "--limit", "3") == "--limit: given with finished evaluations, expected a MODEL to evaluate"
    assert message(*of(run, run), "--device", "cpu").startswith("--device: given with finished evaluations")
    assert "tasks of the model: asr, expected asr and ner, or asr+ner: words and entities of SLUE-VoxPopuli" in message(
        tone_run, *of(*manifests)
    )
    assert "6 of 6 utterances have no labels for the task 'sentiment'" in message(run, *of(voxpopuli, voxpopuli))
    other = shutil.copytree(voxpopuli.parent, tmp_path / "slue-voxceleb") / "dev.jsonl"
    assert "would be written where those of" in message(run, *of(other, voxceleb))
    assert not list(run.glob("evaluation-*"))
