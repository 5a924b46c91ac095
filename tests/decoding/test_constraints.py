"""Constrained decoding: what comes out always matches the pattern, and nothing that matches is ruled out."""

import gc
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from stapes.decoding.constraints import Grammar, GrammarProcessor
from stapes.decoding.drafts import Draft, search
from stapes.errors import WeightsError
from stapes.llms.base import LLM
from stapes.llms.causal import CausalLLM
from stapes.llms.toy import ToyLLM
from stapes.text.markup import MARKUPS
from stapes.text.tags import SENTIMENTS

LABELS = "|".join(SENTIMENTS)
BRACKETS = MARKUPS.build({"name": "brackets"}).grammar("[a-z']")
SLUE = MARKUPS.build({"name": "slue", "tags": ["ORG", "QUANT"]}).grammar("[a-zé]")
JSON = MARKUPS.build({"name": "json", "tags": ["ORG"]}).grammar(r'[^\s"\\]')
PATTERNS = {"labels": LABELS, "brackets": BRACKETS, "slue": SLUE, "json": JSON, "one": "yes", "signs": r"a/b c(?:\\|\"){2,5}"}
PROMPTS = ["what was said", "hm"]
LIMIT = 80


@pytest.fixture(scope="module")
def toy() -> ToyLLM:
    return ToyLLM()


@pytest.fixture(scope="module")
def smollm2(pack: Callable[[str], Path]) -> CausalLLM:
    pack("smollm2-135m-instruct")
    return CausalLLM("pack:smollm2-135m-instruct")


@pytest.fixture(params=["toy", pytest.param("smollm2", marks=pytest.mark.weights)])
def llm(request: pytest.FixtureRequest) -> LLM:
    return request.getfixturevalue(request.param)


class Whim(LogitsProcessor):
    """Scores at random, the same for the same text; the longer it is, the more the end and what closes things are wanted."""

    def __init__(self, llm: LLM, seed: int = 0) -> None:
        self.closing = [
            *llm.end_ids,
            *(token for letters in ("]", " ]", '"', '"}', "}", "}]") for token in llm.encode(letters)),
        ]
        self.brackets = [token for letters in ("]", " ]", "}") for token in llm.encode(letters)]
        self.seed = seed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.stack([self.of(row, row_scores) for row, row_scores in zip(input_ids.tolist(), scores, strict=True)])

    def of(self, text: list[int], scores: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, *text)) % 2**31)
        wild = scores + 20 * torch.randn(scores.shape, generator=generator)
        wild[self.closing] += 10.0 * max(0, len(text) - 5)
        wild[self.brackets] -= 5.0 * max(0, len(text) - 5)  # a quotation mark closes a string that may have brackets in it
        return wild.log_softmax(-1)


def generated(llm: LLM, grammar: Grammar | None, beams: int, prompts: Sequence[str] = PROMPTS) -> list[str]:
    """What the LLM writes at its whim behind each prompt; within the grammar, it has to come to an end."""
    processors = [Whim(llm)] if grammar is None else [Whim(llm), GrammarProcessor(grammar)]
    ids = [llm.encode(prompt) for prompt in prompts]
    width = max(map(len, ids))
    padded = torch.tensor([[llm.end_id] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in ids])
    options = {
        "max_new_tokens": 12 if grammar is None else LIMIT,
        "num_beams": beams,
        "do_sample": False,
        "logits_processor": processors,
    }
    rows = llm.generate(llm.embed(padded), mask, **options).tolist()
    assert grammar is None or all(not set(row).isdisjoint(llm.end_ids) for row in rows)
    return [llm.decode(row) for row in rows]


SMOLLM2 = [pytest.param("smollm2", "brackets", marks=pytest.mark.weights)]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(("which", "name"), [*(("toy", name) for name in PATTERNS), *SMOLLM2])
def test_what_comes_out_matches_in_a_batch_as_alone(request: pytest.FixtureRequest, which: str, name: str, beams: int):
    llm, pattern = request.getfixturevalue(which), PATTERNS[name]
    batch = generated(llm, Grammar(llm, pattern), beams)
    assert all(re.fullmatch(pattern, text) for text in batch), batch
    assert batch == [generated(llm, Grammar(llm, pattern), beams, [prompt])[0] for prompt in PROMPTS]


@pytest.mark.parametrize("beams", [1, 4])
def test_an_llm_left_to_itself_writes_something_else(llm: LLM, beams: int):
    free = generated(llm, None, beams)
    for pattern in PATTERNS.values():
        assert not all(re.fullmatch(pattern, text) for text in free)


def test_exactly_the_tokens_that_lead_to_a_label_are_allowed(llm: LLM):
    """Against every token's letters; a space comes before the label, as in training, and an end token behind it only."""
    processor = GrammarProcessor(Grammar(llm, LABELS))
    wanted = {f" {label}" for label in SENTIMENTS}
    special = {*llm.tokenizer.all_special_ids, *llm.end_ids}
    spelt = {token: llm.spell(token) for token in range(len(llm.tokenizer)) if token not in special}
    for answer in (" Neutral", " Positive"):
        tokens = llm.encode(answer)
        for count in range(len(tokens) + 1):
            text = tokens[:count]
            said = "".join(spelt[token] for token in text)
            scores = processor.allow([text], torch.zeros(1, len(llm.table)))[0]
            allowed = set((scores == 0).nonzero().flatten().tolist())
            assert set(scores.isneginf().nonzero().flatten().tolist()).isdisjoint(allowed)
            expected = {token for token, letters in spelt.items() if any(each.startswith(said + letters) for each in wanted)}
            assert allowed == expected | (set(llm.end_ids) if said in wanted else set()), said


def test_texts_of_unequal_length_in_any_order(llm: LLM):
    """As rows of greedy search with drafts: some leave, come back longer, change places; states are forgotten in between."""
    processor = GrammarProcessor(Grammar(llm, BRACKETS))
    one, two = llm.encode(" we met [PERSON jane doe]'s dog"), llm.encode(" the [ORG eu]")
    for texts in ([[], []], [one[:1], []], [one[:2]], [two[:3], one[:2]], [one[:7], two[:4], one[:7]], [two, one]):
        scores = torch.randn(len(texts), len(llm.table))
        found = processor.allow(texts, scores)
        for row, text in enumerate(texts):
            alone = GrammarProcessor(Grammar(llm, BRACKETS)).allow([text], scores[row : row + 1])[0]
            assert torch.equal(found[row], alone)
    assert len(processor._known) == 2, "states that nobody asked for again are forgotten"


def test_a_row_that_has_ended_or_left_the_grammar_can_only_end(llm: LLM):
    label, end = llm.encode(" Neutral"), llm.end_id
    processor = GrammarProcessor(Grammar(llm, LABELS))
    texts = [[*label, end], [*label, end, end, 5], llm.encode(" nonsense"), [*label, len(llm.table) - 1], label]
    for steps in (texts, [[*text, 7] for text in texts[:4]]):
        scores = processor.allow(steps, torch.zeros(len(steps), len(llm.table)))
        for row in scores[:4]:
            assert row.isfinite().nonzero().flatten().tolist() == [llm.end_ids[0]]


@pytest.mark.parametrize("extra", [-3, 5])
def test_an_embedding_table_of_another_size_than_the_tokenizer(toy: ToyLLM, extra: int):
    full = GrammarProcessor(Grammar(toy, BRACKETS)).allow([[]], torch.zeros(1, len(toy.tokenizer)))
    other = GrammarProcessor(Grammar(toy, BRACKETS)).allow([[]], torch.zeros(1, len(toy.tokenizer) + extra))
    both = min(full.shape[1], other.shape[1])
    assert torch.equal(full[:, :both], other[:, :both])
    assert other[:, both:].isneginf().all()


def test_special_tokens_are_no_letters(toy: ToyLLM):
    """Not even where the pattern has anything in it, their names included."""
    scores = GrammarProcessor(Grammar(toy, r"(?:<u>|.)+")).allow([toy.encode(" a")], torch.zeros(1, len(toy.tokenizer)))[0]
    special = set(toy.tokenizer.all_special_ids)
    assert {token for token in special if scores[token] == 0} == set(toy.end_ids)
    assert int((scores == 0).sum()) > 200


def test_the_grammar_goes_before_a_ban(toy: ToyLLM):
    scores = torch.zeros(1, len(toy.tokenizer))
    scores[0, [token for token in range(len(toy.tokenizer)) if toy.spell(token) in (" ", " y")]] = -torch.inf
    found = GrammarProcessor(Grammar(toy, "yes")).allow([[]], scores)[0]
    assert {toy.spell(token) for token in found.isfinite().nonzero().flatten().tolist()} == {" y"}


def test_greedy_search_with_drafts(toy: ToyLLM):
    """The same text as ``generate`` writes, whatever the draft says."""
    whim, grammar = Whim(toy), Grammar(toy, BRACKETS)
    expected = generated(toy, grammar, beams=1, prompts=["hm", "so"])
    processor = GrammarProcessor(grammar)

    def choose(rows: list[int], texts: list[list[int]], scores: Tensor) -> list[int]:
        wild = torch.stack([whim.of(text, row) for text, row in zip(texts, scores, strict=True)])
        return processor.allow(texts, wild).argmax(-1).tolist()

    prompts = toy.embed(torch.tensor([toy.encode(prompt) for prompt in ("hm", "so")]))
    for drafts in (["", ""], [f" {expected[0]}", " nothing like it"]):
        found = search(
            toy, prompts, torch.ones(prompts.shape[:2], dtype=torch.bool), [Draft(text, toy) for text in drafts], choose
        )
        assert [toy.decode(text) for text in found] == expected


def test_a_dead_end_is_our_mistake_and_not_silence(toy: ToyLLM):
    with pytest.raises(AssertionError, match=r"nothing may follow '' in \[a&&b\]"):
        GrammarProcessor(Grammar(toy, "[a&&b]")).allow([[]], torch.zeros(1, len(toy.tokenizer)))
    with pytest.raises(AssertionError, match=r"a\{: .*invalid regex"):
        Grammar(toy, "a{")


def test_a_tokenizer_without_grammars_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch):
    from transformers import ByT5Tokenizer

    llm = ToyLLM()
    monkeypatch.setattr(llm, "tokenizer", ByT5Tokenizer())
    with pytest.raises(
        WeightsError, match=r"toy-32-0: a tokenizer that no grammar .*expected a fast tokenizer; decode without"
    ):
        Grammar(llm, LABELS)


def test_what_is_compiled_is_kept_as_long_as_the_llm():
    from stapes.decoding import constraints

    gc.collect()  # models of other tests, which may go at any time
    before = len(constraints._VOCABULARIES)
    llm = ToyLLM()
    first, second = Grammar(llm, LABELS), Grammar(llm, LABELS)
    assert first._start is second._start
    assert len(constraints._VOCABULARIES) == before + 1
    del llm, first, second
    gc.collect()
    assert len(constraints._VOCABULARIES) == before
