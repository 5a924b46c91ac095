"""The command against a server of the tests: what it writes, how it goes on after it was killed, and what it refuses."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import chat_server
import pytest

from stapes.data.manifest import read_manifest, write_manifest
from stapes.types import Entity, Utterance

PAGE = Path(__file__).parents[2] / "docs/annotate.md"
TEXTS = [f"{words} {n}" for n in range(16) for words in ("he left london", "on monday", "nothing else")]


@pytest.fixture
def chat():
    with chat_server.running() as server:
        yield server


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """48 utterances, labelled as the server labels, but that people never found a monday."""
    rows = []
    for n, text in enumerate(TEXTS):
        place = text.find("london")
        found = (Entity("GPE", place, place + 6, "london"),) if place >= 0 else ()
        rows.append(Utterance(f"u{n}", tmp_path / "a.wav", text, 1.0, entities=found, sentiment="Neutral"))
    write_manifest(tmp_path / "all.jsonl", rows)
    return tmp_path / "all.jsonl"


def command(manifest: Path, output: Path, chat: chat_server.ChatServer, *more: str) -> list[str]:
    where = ["--base-url", chat.address, "--model", "rules", "--examples", str(manifest), "--shots", "2"]
    return ["annotate", str(manifest), str(output), *where, "--concurrency", "4", "--quiet", *more]


def test_a_manifest_is_labelled_measured_and_paid_for(stapes, manifest, chat, tmp_path):
    chat.script = {TEXTS[1]: ['{"entities": [{"tag": "GPE", "phrase": "paris"}, {"tag": "PLANET", "phrase": "monday"}]}']}
    prices = ["--price-in", "2.5", "--price-out", "10"]
    result = stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--quality", str(manifest), "--json", *prices))
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out.summary.json").read_text())
    assert facts["rejected"] == {"1: not in the transcript": 1, "2: unknown tag": 1}
    assert facts["usage"] == {"requests": 48, "prompt_tokens": 4800, "cached_tokens": 1920, "completion_tokens": 480}
    assert facts["cost"] == pytest.approx(4800 * 2.5e-6 + 480 * 10e-6)
    rates = facts["quality"]["rates"]
    assert rates["raw, before"]["precision"] == pytest.approx(100 * 16 / (16 + 17))
    assert rates["raw, after filter 2"]["precision"] == pytest.approx(100 * 16 / (16 + 15))
    assert rates["combined, before"]["recall"] == 100.0
    per_tag = facts["quality"]["per_tag"]
    assert (per_tag["raw, before"]["PLANET"]["invented"], "PLANET" in per_tag["raw, after filter 2"]) == (1, False)
    assert [per_tag[f"raw, {stage}"]["GPE"]["precision"] for stage in ("before", "after filter 1")] == [1600 / 17, 100.0]
    rejected = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert [(each["phrase"], each["lost"]) for each in rejected] == [("paris", False), ("monday", False)]
    rows = read_manifest(tmp_path / "out.jsonl", check_audio=False)
    assert [row.id for row in rows] == [f"u{n}" for n in range(48)]
    assert [entity.phrase for entity in rows[4].entities or ()] == ["monday"]
    assert "| after filter 2 | raw |" in (tmp_path / "out.quality.md").read_text()
    errors = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert Counter(each["kind"] for each in errors) == {"invented": 15}
    assert "examples: 48 chosen: (none) 32, GPE 16" in result.stderr
    assert "lacking to 32 each, as the manifest has no more: GPE 16" in result.stderr


def test_killed_in_the_middle_it_goes_on_and_ends_in_the_same_bytes(stapes, manifest, chat, tmp_path):
    hard = TEXTS[5]
    chat.script = {hard: ["refusal"] * 3}
    whole = stapes(*command(manifest, tmp_path / "whole.jsonl", chat))
    assert whole.exit_code == 2, whole.output
    chat.asked.clear()
    chat.script = {hard: ["refusal"] * 3}
    chat.delay_seconds = 0.1
    arguments = [sys.executable, "-m", "stapes.cli.main", *command(manifest, tmp_path / "killed.jsonl", chat)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while len(chat.asked) < 20:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # what the server was about to answer
    journal = tmp_path / "killed.journal.jsonl"
    written = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True)[1:] if line.endswith(b"\n")]
    arrived = {TEXTS[int(record["id"][1:])] for record in written}
    before = chat.times_asked
    assert 10 < len(arrived) < 30
    assert not (tmp_path / "killed.jsonl").exists()
    with journal.open("ab") as file:  # as if the kill had come within a write
        file.write(b'{"id": "u47", "question": "12')
    chat.delay_seconds = 0.0
    chat.script = {hard: ["refusal"] * 3}
    again = stapes(*command(manifest, tmp_path / "killed.jsonl", chat))
    assert again.exit_code == 2, again.output
    # Nothing that had arrived was asked for again. What was in flight, at most as many as are asked at once, was.
    after = chat.times_asked - before
    assert not arrived & set(after)
    in_flight = set(before) - arrived
    assert len(in_flight) <= 4
    assert set(after) == set(TEXTS) - arrived
    assert all(chat.times_asked[text] == 1 for text in TEXTS if text not in in_flight | {hard})
    for what in ("jsonl", "rejected.jsonl", "failures.jsonl"):
        assert (tmp_path / f"killed.{what}").read_bytes() == (tmp_path / f"whole.{what}").read_bytes(), what
    assert json.loads((tmp_path / "whole.failures.jsonl").read_text())["reason"] == "refused"


def test_a_second_run_asks_nothing(stapes, manifest, chat, tmp_path):
    once = stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--limit", "10"))
    assert (once.exit_code, len(chat.asked)) == (0, 10)
    (tmp_path / "out.jsonl").unlink()
    assert stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--limit", "12")).exit_code == 0
    assert len(chat.asked) == 12
    assert len(read_manifest(tmp_path / "out.jsonl", check_audio=False)) == 12


def test_failures_are_said_with_the_exit_status(stapes, manifest, chat, tmp_path):
    chat.script = {TEXTS[0]: ["refusal"] * 3}
    result = stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--limit", "3"))
    assert result.exit_code == 2
    assert f"error: 1 utterances have no labels, see {tmp_path / 'out.failures.jsonl'}" in result.stderr
    assert "failed: refused (1)" in result.stdout
    assert len(read_manifest(tmp_path / "out.jsonl", check_audio=False)) == 2


def test_sentiments(stapes, manifest, chat, tmp_path):
    result = stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--task", "sentiment", "--quality", str(manifest)))
    assert result.exit_code == 0, result.output
    assert {row.sentiment for row in read_manifest(tmp_path / "out.jsonl", check_audio=False)} == {"Neutral"}
    assert "| after filter 2 | sentiment | 100.0 | 100.0 | 100.0 |" in (tmp_path / "out.quality.md").read_text()


def test_a_journal_of_another_model_is_refused(stapes, manifest, chat, tmp_path, one_line):
    stapes(*command(manifest, tmp_path / "out.jsonl", chat, "--limit", "1"))
    arguments = [each if each != "rules" else "other" for each in command(manifest, tmp_path / "out.jsonl", chat)]
    line = stapes(*arguments).stderr.splitlines()[-1]
    assert line.startswith(f'error: {tmp_path / "out.journal.jsonl"}: written with model "rules", expected "other"')
    assert len(chat.asked) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "annotator: none named, expected one of --model, --local and --spacy"),
        (["--model", "a", "--spacy"], "annotator: --model and --spacy, expected one of"),
        (["--spacy", "--task", "sentiment"], "--spacy: asked for sentiment, expected --task ner"),
        (["--spacy", "--task", "nre"], "--task: 'nre'; did you mean 'ner'?"),
        (["--spacy", "--reads", "truecase"], "--reads: 'truecase'; did you mean 'truecased'?"),
        (["--spacy", "--base-url", "http://x"], "--base-url: given with --spacy, expected --model"),
        (["--model", "a", "--price-in", "1"], "--price-in, --price-out: one without the other"),
        (["--spacy", "--reads", "raw"], "--reads raw: no utterance is written with capitals"),
    ],
)
def test_what_cannot_be_done_is_one_line(stapes, manifest, tmp_path, one_line, options, message):
    assert message in one_line(stapes("annotate", manifest, tmp_path / "out.jsonl", *options))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *((["--spacy", option, "3"], f"{option}: has no effect without --model") for option in ("--concurrency", "--timeout")),
        (["--local", "path:/nowhere", "--retries", "6"], "--retries: has no effect without --model"),
        (["--local", "path:/nowhere", "--price-in", "1", "--price-out", "2"], "--price-in: has no effect without --model"),
        (["--model", "a", "--device", "cpu"], "--device: has no effect without --local"),
        (["--spacy", "--dtype", "auto"], "--dtype: has no effect without --local"),
        *((["--model", "a", option, "1"], f"{option}: has no effect without --examples") for option in ("--pool", "--shots")),
        (["--model", "a", "--seed", "0"], "--seed: has no effect without --examples"),
        (["--model", "a", "--examples", "e.jsonl", "--shots", "0", "--pool", "9"], "--pool: has no effect with --shots 0"),
        (["--model", "a", "--case-from", "c.jsonl"], "--case-from: has no effect with --reads text"),
        (["--spacy", "--reads", "text", "--case-from", "c.jsonl"], "--case-from: has no effect with --reads text"),
    ],
)
def test_an_option_without_effect_is_one_line_even_with_its_default(stapes, manifest, tmp_path, one_line, options, message):
    line = one_line(stapes("annotate", manifest, tmp_path / "out.jsonl", *options))
    assert line == f"{message}; leave it out"
    assert not list(tmp_path.glob("out*"))


def test_the_pages_pilot_check_and_full_run_fit_together(stapes, manifest, chat, tmp_path, monkeypatch):
    """As they stand in the documentation, but for the server: the full run goes on from the pilot, the check is of both."""
    (section,) = re.findall(r"\*\*OpenAI\.\*\*.*?```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    pilot, check, full = (shlex.split(line)[1:] for line in section.splitlines())
    assert [words for words in pilot if words not in full] == ["--limit", "100"]
    for words in (pilot, check):
        assert words[3:7] == full[3:7] and "--price-in" in words
    rows = read_manifest(manifest, check_audio=False)
    for path, repeats in ((pilot[1], 3), (check[1], 1), ("data/slue/train.jsonl", 1)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copies = [replace(row, id=f"{row.id}-{n}") for n in range(repeats) for row in rows]
        write_manifest(tmp_path / path, copies)
    monkeypatch.chdir(tmp_path)
    asked = []
    for words in (pilot, check, full):
        result = stapes(*words, "--base-url", chat.address, "--quiet")
        assert result.exit_code == 0, result.output
        asked.append(len(chat.asked))
    assert asked == [100, 148, 192]
    assert "By tag" in Path(check[2]).with_suffix(".quality.md").read_text()


@pytest.mark.parametrize(
    ("module", "options", "what"),
    [("spacy", ["--spacy", "--reads", "text"], "--spacy"), ("openai", ["--model", "a"], "--model")],
)
def test_a_missing_library_is_one_line_with_what_to_do(
    stapes, manifest, tmp_path, one_line, monkeypatch, module, options, what
):
    import importlib.util

    real = importlib.util.find_spec
    for place in ("spacy", "endpoint"):
        monkeypatch.setattr(f"stapes.annotate.backends.{place}.find_spec", lambda name: None if name == module else real(name))
    line = one_line(stapes("annotate", manifest, tmp_path / "out.jsonl", *options))
    assert line == f"{what}: an optional package is missing; run `pip install 'stapes[annotate]'`"


def test_optional_libraries_are_imported_only_where_they_are_used():
    modules = ("cli.annotate", "annotate.label", "annotate.quality", "annotate.report", "annotate.backends.endpoint")
    code = "import sys\n" + "\n".join(f"import stapes.{name}" for name in modules)
    code += "\nprint([name for name in ('openai', 'tenacity', 'spacy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.weights
def test_spacy_labels_a_manifest(stapes, pack, tmp_path):
    pytest.importorskip("spacy")
    pack("en-core-web-md")
    raw = "On Monday, the Council of Europe met in 2008."
    text = "on monday the council of europe met in two thousand and eight."
    write_manifest(tmp_path / "raw.jsonl", [Utterance("a", tmp_path / "a.wav", text, 1.0, raw_text=raw)])
    result = stapes("annotate", tmp_path / "raw.jsonl", tmp_path / "out.jsonl", "--spacy")
    assert result.exit_code == 0, result.output
    (row,) = read_manifest(tmp_path / "out.jsonl", check_audio=False)
    assert [(each.label, each.phrase) for each in row.raw_entities or ()] == [
        ("DATE", "Monday"),
        ("ORG", "Council of Europe"),
        ("DATE", "2008"),
    ]
    assert [each.phrase for each in row.entities or ()] == ["monday", "council of europe", "two thousand and eight"]
