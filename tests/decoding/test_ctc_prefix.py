"""CTC prefix scores against an enumeration of all paths, and what the processor makes of them."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.decoding.ctc_prefix import CTCPrefixProcessor, CTCPrefixScorer, Prefixes, SpokenPieces
from stapes.decoding.drafts import Draft
from stapes.decoding.spoken import Spoken
from stapes.llms.toy import ToyLLM
from stapes.text.pieces import PieceVocabulary


def collapse(path: Sequence[int]) -> tuple[int, ...]:
    """Repeats merged, blanks (0) removed."""
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def enumerated(log_probs: Tensor, prefix: Sequence[int], classes: Sequence[int]) -> tuple[float, float]:
    """Log-probability that the output begins with ``prefix``, and that it is ``prefix``, over all paths through ``classes``."""
    begins = exact = 0.0
    for path in itertools.product(classes, repeat=len(log_probs)):
        probability = math.exp(sum(float(step[label]) for step, label in zip(log_probs, path, strict=True)))
        output = collapse(path)
        begins += probability * (output[: len(prefix)] == tuple(prefix))
        exact += probability * (output == tuple(prefix))
    return math.log(begins) if begins else -math.inf, math.log(exact) if exact else -math.inf


def scored(scorer: CTCPrefixScorer, prefix: Sequence[int], utterance: int = 0) -> Prefixes:
    """The state of one prefix of one utterance."""
    state = scorer.start().take(torch.tensor([utterance]))
    for label in prefix:
        state = scorer.extend(state, torch.tensor([utterance]), torch.tensor([label]))
    return state


def random_log_probs(*shape: int, seed: int = 0) -> Tensor:
    return (2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


@pytest.mark.parametrize(("steps", "pieces"), [(1, 3), (2, 3), (4, 3), (5, 2), (6, 2)])
def test_against_all_paths(steps: int, pieces: int):
    """Every prefix of up to four pieces, repeated ones included; -inf is anything below what is left of a piece in padding."""
    log_probs = random_log_probs(1, steps, 1 + pieces)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([steps]))
    for size in range(5):
        for prefix in itertools.product(range(1, 1 + pieces), repeat=size):
            begins, exact = enumerated(log_probs[0], prefix, range(1 + pieces))
            state = scored(scorer, prefix)
            for found, expected in ((float(state.score), begins), (float(state.complete), exact)):
                assert found == pytest.approx(expected, abs=1e-6) if expected > -math.inf else found < -500, prefix


def test_what_may_follow_adds_up():
    """log psi(g) is the sum over its end and everything that may come next."""
    scorer = CTCPrefixScorer(random_log_probs(1, 12, 4), torch.tensor([12]))
    for prefix in ((), (1,), (2, 2), (1, 3, 1)):
        state = scored(scorer, prefix)
        parts = [float(state.complete), *(float(scored(scorer, (*prefix, label)).score) for label in (1, 2, 3))]
        assert float(state.score) == pytest.approx(math.log(sum(map(math.exp, parts))), abs=1e-6)


def test_the_complete_probability_is_pytorchs_ctc_loss():
    log_probs = random_log_probs(1, 60, 30)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([60]))
    for target in ([3], [7, 7, 7], list(range(1, 25))):
        loss = F.ctc_loss(log_probs.transpose(0, 1).double(), torch.tensor([target]), (60,), (len(target),), reduction="sum")
        assert float(scored(scorer, target).complete) == pytest.approx(-float(loss), rel=1e-9)


def test_long_utterances_keep_their_digits():
    """30 s at 25 embeddings a second, with posteriors as sharp as a trained head's."""
    log_probs = (12 * torch.randn(1, 750, 200, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    target = [1 + (37 * i) % 199 for i in range(120)]
    scorer = CTCPrefixScorer(log_probs, torch.tensor([750]))
    loss = F.ctc_loss(log_probs.transpose(0, 1).double(), torch.tensor([target]), (750,), (120,), reduction="sum")
    assert float(scored(scorer, target).complete) == pytest.approx(-float(loss), rel=1e-6)


def test_neighbours_and_padding_change_nothing():
    log_probs = random_log_probs(3, 9, 5)
    lengths = [9, 4, 6]
    batch = CTCPrefixScorer(log_probs, torch.tensor(lengths))
    for utterance, length in enumerate(lengths):
        alone = CTCPrefixScorer(log_probs[utterance : utterance + 1, :length], torch.tensor([length]))
        for prefix in ((), (1,), (4, 4), (2, 1, 3)):
            found, expected = scored(batch, prefix, utterance), scored(alone, prefix)
            torch.testing.assert_close(found.score, expected.score)
            torch.testing.assert_close(found.complete, expected.complete)


# -- in generate -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm() -> ToyLLM:
    return ToyLLM()


@pytest.fixture(scope="module")
def pieces(llm: ToyLLM) -> PieceVocabulary:
    return PieceVocabulary(llm.tokenizer, 0)  # single bytes: "the" is three pieces


def heard(pieces: PieceVocabulary, letters: str, steps: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    """(1, K, 1 + P) in which only blank and the pieces of ``letters`` are possible, and their classes."""
    tokenizer = pieces.tokenizer
    classes = [0, *(piece + 1 for letter in letters for piece in pieces.of_tokens(tokenizer(letter)["input_ids"]))]
    log_probs = torch.full((1, steps, 1 + len(pieces)), -torch.inf)
    log_probs[:, :, classes] = random_log_probs(1, steps, len(classes), seed=seed)
    return log_probs, classes


def spoken(llm: ToyLLM, pieces: PieceVocabulary) -> SpokenPieces:
    """Everything is said."""
    return SpokenPieces(Spoken(llm, lambda state, letters: (state, letters)), pieces)


def test_every_token_is_scored_by_language_and_sound(llm: ToyLLM, pieces: PieceVocabulary):
    """Tokens of one, two and three pieces, and the end, after nothing, after "the" and after "the" "h"."""
    log_probs, classes = heard(pieces, "the", 6)
    weight, (end,) = 0.3, llm.end_ids
    processor = CTCPrefixProcessor(
        CTCPrefixScorer(log_probs, torch.tensor([6])), spoken(llm, pieces), weight, [end], 1, candidates=len(llm.tokenizer)
    )
    scores = torch.randn(1, len(llm.tokenizer), generator=torch.Generator().manual_seed(0))
    language = scores.log_softmax(-1)[0]
    language = language.clamp(min=float(language.max()) - 4.0)
    the, th, h = (llm.tokenizer.convert_tokens_to_ids(token) for token in ("the", "th", "h"))
    for tokens in ((), (the,), (the, h)):
        mixed = processor(torch.tensor([tokens], dtype=torch.long), scores)[0]
        prefix = [piece + 1 for piece in pieces.of_tokens(tokens)]
        before, exact = enumerated(log_probs[0], prefix, classes)
        for token in (the, th, h):
            after, _ = enumerated(log_probs[0], prefix + [piece + 1 for piece in pieces.of_token(token)], classes)
            expected = (1 - weight) * float(language[token]) + weight * (after - before)
            assert float(mixed[token]) == pytest.approx(expected, abs=1e-4) if after > -math.inf else mixed[token] < -100
        assert float(mixed[end]) == pytest.approx((1 - weight) * float(language[end]) + weight * (exact - before), abs=1e-4)


def test_only_the_best_tokens_of_the_llm_are_scored(llm: ToyLLM, pieces: PieceVocabulary):
    log_probs, _ = heard(pieces, "the", 6)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([6]))
    processor = CTCPrefixProcessor(scorer, spoken(llm, pieces), 0.3, llm.end_ids, 1, candidates=5)
    scores = torch.randn(1, len(llm.tokenizer))
    mixed = processor(torch.zeros(1, 0, dtype=torch.long), scores)
    possible = set(mixed.isfinite()[0].nonzero().flatten().tolist())
    assert set(scores[0].topk(5).indices.tolist()) - set(llm.tokenizer.all_special_ids) <= possible
    assert len(possible) <= 5 + len(llm.end_ids)


@pytest.mark.parametrize("beams", [1, 3])
def test_with_nearly_all_the_weight_on_it_the_text_is_what_was_heard(llm: ToyLLM, pieces: PieceVocabulary, beams: int):
    """Two utterances of unequal length; the random LLM has no say but for the choice between ways to spell the same text."""
    texts = ["the hat hit", "a rat"]
    rows = []
    for text in texts:
        path = [c for piece in pieces.of_tokens(llm.encode(text)) for c in (0, piece + 1, piece + 1, 0)]
        rows.append(F.one_hot(torch.tensor(path), 1 + len(pieces)).float().clamp(min=1e-6).log())
    lengths = torch.tensor([len(row) for row in rows])
    log_probs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    scorer = CTCPrefixScorer(log_probs, lengths)
    processor = CTCPrefixProcessor(scorer, spoken(llm, pieces), 0.999, llm.end_ids, beams, candidates=len(llm.tokenizer))
    prompt = llm.embed(torch.tensor([llm.encode("<u>x<a>")] * 2))
    mask = torch.ones(prompt.shape[:2], dtype=torch.bool)
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 40, "logits_processor": [processor]}
    found = llm.generate(prompt, mask, **options)
    assert [llm.decode(row) for row in found.tolist()] == texts


def heard_and_scored(text: str, floor: float, banned: bool = False) -> tuple[Tensor, int]:
    """Mixed scores of a first token with an LLM that is sure of another, and the token that was heard."""
    llm = ToyLLM()
    pieces = PieceVocabulary(llm.tokenizer, 6)
    token = llm.encode(text)[0]
    log_probs = torch.full((1, 4, 1 + len(pieces)), -20.0)
    for frame, piece in enumerate(pieces.of_tokens(llm.encode(text))):
        log_probs[0, frame, 1 + piece] = 0.0
    log_probs[0, len(pieces.of_tokens(llm.encode(text))) :, 0] = 0.0
    scores = torch.linspace(0.0, 0.5, len(llm.tokenizer))[None].repeat(1, 1)
    scores[0, llm.encode("z")[0]] = 30.0
    if banned:
        scores[0, token] = -torch.inf
    scorer = CTCPrefixScorer(log_probs, torch.tensor([4]))
    said, drafts = spoken(llm, pieces), [Draft(text, llm)]
    processor = CTCPrefixProcessor(scorer, said, 0.4, llm.end_ids, 1, drafts, candidates=2, floor=floor)
    return processor.mix([0], [[]], scores)[0], token


def test_what_was_heard_is_heard_over_an_llm_that_is_sure_of_itself():
    mixed, token = heard_and_scored("the", floor=4.0)
    assert int(mixed.argmax()) == token
    deaf, _ = heard_and_scored("the", floor=40.0)
    assert int(deaf.argmax()) != token
    forbidden, _ = heard_and_scored("the", floor=4.0, banned=True)
    assert forbidden[token].isneginf(), "what was ruled out before stays so"
