"""Every token falls apart into pieces, the same ones that byte-pair encoding with fewer merges would have made."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stapes.errors import RecipeError
from stapes.llms.toy import ToyLLM
from stapes.text.pieces import PieceVocabulary

TEXTS = (
    "the cat and the other man in the rain",
    "and then, in 1984, there were other theatres; wasn't it?",
    "  two  spaces, a\ttab and\na line",
    "anderthein therein ander",
    "naïve café über straße 北京",
    "supercalifragilisticexpialidocious internationalisation",
)


@pytest.fixture(scope="module")
def toy() -> Any:
    return ToyLLM().tokenizer


@pytest.fixture(scope="module")
def smollm2(pack: Callable[[str], Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pack("smollm2-135m-instruct"))


TOKENIZERS = [
    pytest.param("toy", 0),
    pytest.param("toy", 3),
    pytest.param("toy", 1000),
    pytest.param("smollm2", 0, marks=pytest.mark.weights),
    pytest.param("smollm2", 1000, marks=pytest.mark.weights),
    pytest.param("smollm2", 10_000, marks=pytest.mark.weights),
]


@pytest.fixture
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def by_merging(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of a word: the pair of lowest rank is merged, the leftmost first, until none is left."""
    parts = list(word)
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(parts)))
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


@pytest.mark.parametrize(("tokenizer", "merges"), TOKENIZERS, indirect=["tokenizer"])
def test_the_pieces_of_a_token_spell_it(tokenizer: Any, merges: int):
    pieces = PieceVocabulary(tokenizer, merges)
    names = {number: name for name, number in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    for token, name in names.items():
        parts = pieces.of_token(token)
        if token in special:
            assert parts == ()
        else:
            assert "".join(names[pieces.ids[part]] for part in parts) == name


@pytest.mark.parametrize(("tokenizer", "merges"), TOKENIZERS, indirect=["tokenizer"])
def test_the_pieces_of_a_text_are_those_of_fewer_merges(tokenizer: Any, merges: int):
    pieces = PieceVocabulary(tokenizer, merges)
    core = tokenizer.backend_tokenizer
    listed = json.loads(core.to_str())["model"]["merges"][:merges]
    ranks = {tuple(pair if isinstance(pair, list) else pair.split(" ")): rank for rank, pair in enumerate(listed)}
    for text in TEXTS:
        words = [word for word, _ in core.pre_tokenizer.pre_tokenize_str(text)]
        expected = [part for word in words for part in by_merging(word, ranks)]
        found = pieces.of_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert tokenizer.convert_ids_to_tokens([pieces.ids[piece] for piece in found]) == expected
        assert pieces.decode(found) == text.strip()


def test_how_many_pieces_there_are(toy: Any):
    """The 256 bytes and one more for each merge."""
    assert [len(PieceVocabulary(toy, merges)) for merges in (0, 1, 6, 1000)] == [256, 257, 262, 288]


def test_the_pieces_are_tokens_of_the_model(toy: Any):
    pieces = PieceVocabulary(toy, 2)
    assert pieces.ids == sorted(set(pieces.ids))
    assert all(pieces.of_token(token) == (number,) for number, token in enumerate(pieces.ids))
    spelled = [toy.convert_ids_to_tokens(pieces.ids[piece]) for piece in pieces.of_tokens(toy(" then and")["input_ids"])]
    assert spelled == ["Ġ", "the", "n", "Ġ", "a", "n", "d"]


@pytest.mark.weights
def test_pieces_are_enough_for_speech_and_not_too_many(smollm2: Any):
    """About as many for a second of speech as the docstring says: some 15 characters are 5 pieces."""
    pieces = PieceVocabulary(smollm2, 1000)
    text = "and mister john dashwood had then leisure to consider how much there might be prudently in his power"
    assert 5 <= 15 * len(pieces.of_tokens(smollm2(f" {text}")["input_ids"])) / len(text) <= 7


def test_another_kind_of_tokenizer_is_an_error():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(RecipeError, match=r"the LLM's tokenizer is WordLevel, expected a byte-pair tokenizer"):
        PieceVocabulary(PreTrainedTokenizerFast(tokenizer_object=words), 10)
