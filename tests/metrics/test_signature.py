"""Signatures are read as they are written, and say nothing twice."""

from stapes.metrics.signature import facts, with_facts
from stapes.metrics.translation import bleu
from stapes.metrics.wer import wer
from stapes.types import Score


def test_what_metrics_write_is_read():
    said = facts(bleu(["a b c d"], ["a b c d"], tokenize="char", resamples=0).signature)
    assert (said["tok"], said["n"], said["nrefs"]) == ("char", "1", "1")
    said = facts(wer(["a"], ["b"], normaliser="whisper-en", resamples=0).signature)
    assert said["norm"].startswith("whisper-en.v1(transformers-")
    assert facts("comet|model:Unbabel/a:b") == {"model": "Unbabel/a:b"}
    assert facts("") == {}


def test_more_is_added_and_nothing_twice():
    score = Score(3.0, {"a": 1}, (1.0, 4.0), "wer|norm:slue.v1|n:2")
    more = with_facts(score, n="3", data="abc", synthetic="")
    assert more.signature == "wer|norm:slue.v1|n:2|data:abc"
    assert (more.value, more.parts, more.interval) == (score.value, score.parts, score.interval)
    assert facts(more.signature) == {"norm": "slue.v1", "n": "2", "data": "abc"}
