"""Joint decoding: every token is scored by the LLM and by how well the text so far fits the sound.

    score(c | g) = (1 - w) max(log p_LLM(c | g, speech), log p_LLM(best | g, speech) - f) + w (log psi(g c) - log psi(g))

psi(h) is the CTC prefix probability of Watanabe et al. (2017, "Hybrid CTC/attention architecture"): the probability that the
CTC head's output begins with h; for the end token it is the probability of exactly h. A loop or an invented word finds no
sound to rest on, and an answer cannot end while words are left. An LLM in a loop is so sure of itself that no sound would be
heard over it: hence the floor f, and hence the token with which the CTC head's own text would go on is always a candidate.
The LLM's tokens fall apart into the head's pieces (``text/pieces.py``), so that every text it could write can be scored.

Markup m (``[PERSON``, ``]``) is not heard. To the sound it is as good as what fits best; and as the LLM's doubts about a word
are shared by many tokens c, where those about markup are not, it stands to the best of them as to all of them together:

    score(m | g) = (1 - w) (log p_LLM(m | g) + b) + w max(gain of any c or of the end) + max_c score(c | g)
                   - ((1 - w) log sum_c p_LLM(c | g) + w max_c gain of c),   gain of c: log psi(g c) - log psi(g)

With r_n(t), r_b(t) the log-probability of all paths over the first t frames that spell the prefix and end in its last piece
or in blank, and phi(t) = log(r_b(t) + [c != last piece] r_n(t)):

    r_n'(t) = log p_t(c) + log(e^r_n'(t-1) + e^phi(t-1)),   r_b'(t) = log p_t(blank) + log(e^r_b'(t-1) + e^r_n'(t-1))
    psi(g c) = logsumexp_t (phi(t-1) + log p_t(c))

Both recursions are linear, hence one cumulative log-sum each instead of a loop over frames; in float64, where the differences
of long sums keep their digits.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from stapes.decoding.drafts import Draft
from stapes.decoding.spoken import Spoken
from stapes.losses.ctc import BLANK
from stapes.text.pieces import PieceVocabulary

IMPOSSIBLE = -1e3  # log-probability of a piece in the padding; finite, so that differences of sums stay numbers


@dataclass
class Prefixes:
    """CTC states of some prefixes, each axis 0 of the same length R.

    Attributes:
        ends_piece, ends_blank: r_n and r_b, (R, T + 1), index t counting frames consumed.
        last: (R,) class of the last piece, -1 for the empty prefix.
        score: (R,) log psi.
    """

    ends_piece: Tensor
    ends_blank: Tensor
    last: Tensor
    score: Tensor

    def take(self, index: Tensor) -> Prefixes:
        """The states at ``index``."""
        return Prefixes(self.ends_piece[index], self.ends_blank[index], self.last[index], self.score[index])

    @classmethod
    def collect(cls, found: Sequence[tuple[Prefixes, int]]) -> Prefixes:
        """One of each of several sets of states."""
        fields = ("ends_piece", "ends_blank", "last", "score")
        return cls(*(torch.stack([getattr(states, field)[row] for states, row in found]) for field in fields))

    @property
    def complete(self) -> Tensor:
        """(R,) log-probability of exactly each prefix."""
        return torch.logaddexp(self.ends_piece[:, -1], self.ends_blank[:, -1])


class CTCPrefixScorer:
    """Prefix scores of a batch.

    Args:
        log_probs: (B, K, 1 + P) of the CTC head.
        lengths: (B,) embeddings of each.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        if log_probs.device.type == "mps":  # which has no float64
            log_probs = log_probs.cpu()
        padding = torch.arange(log_probs.shape[1], device=log_probs.device) >= lengths[:, None].to(log_probs.device)
        self.log_probs = log_probs.double().masked_fill(padding[:, :, None], IMPOSSIBLE).clamp(min=IMPOSSIBLE)
        self.log_probs[:, :, BLANK] = self.log_probs[:, :, BLANK].masked_fill(padding, 0.0)
        self.blank_sum = torch.nn.functional.pad(self.log_probs[:, :, BLANK].cumsum(1), (1, 0))

    def start(self) -> Prefixes:
        """The empty prefix of each utterance."""
        count = len(self.log_probs)
        impossible = torch.full_like(self.blank_sum, -torch.inf)
        last = torch.full((count,), -1, device=self.blank_sum.device)
        return Prefixes(impossible, self.blank_sum.clone(), last, self.blank_sum.new_zeros(count))

    def extend(self, prefixes: Prefixes, utterance: Tensor, label: Tensor) -> Prefixes:
        """Each prefix with one more piece.

        Args:
            prefixes: R states.
            utterance: (R,) which utterance each belongs to.
            label: (R,) class of the piece.
        """
        piece = self.log_probs[utterance, :, label]  # (R, T)
        repeated = (prefixes.last == label)[:, None]
        phi = torch.where(repeated, prefixes.ends_blank, torch.logaddexp(prefixes.ends_blank, prefixes.ends_piece))[:, :-1]
        total = torch.nn.functional.pad(piece.cumsum(1), (1, 0))
        ends_piece = total[:, 1:] + torch.logcumsumexp(phi - total[:, :-1], dim=1)
        ends_piece = torch.nn.functional.pad(ends_piece, (1, 0), value=-torch.inf)
        blanks = self.blank_sum[utterance]
        ends_blank = blanks[:, 1:] + torch.logcumsumexp(ends_piece[:, :-1] - blanks[:, :-1], dim=1)
        ends_blank = torch.nn.functional.pad(ends_blank, (1, 0), value=-torch.inf)
        return Prefixes(ends_piece, ends_blank, label, torch.logsumexp(phi + piece, dim=1))


class Heard(NamedTuple):
    """What a token is to the sound.

    Attributes:
        pieces: the numbers of those that it is judged by; none for markup.
        advances: whether they are said now. A space is judged where it stands, and where it may belong to markup is said with
            the word behind it.
        ends: whether it says without a word that all is said.
    """

    pieces: Sequence[int]
    advances: bool
    ends: bool = False


class SpokenPieces:
    """The pieces that the sound has to hold for a token, which depend on what stands before it: markup is not said.

    Args:
        spoken: what of the texts is.
        pieces: how the LLM's tokens fall apart.
    """

    def __init__(self, spoken: Spoken, pieces: PieceVocabulary) -> None:
        self.spoken, self.pieces = spoken, pieces

    def __call__(self, text: tuple[int, ...], token: int) -> Heard | None:
        """What ``token`` is to the sound after ``text``; None for a special token."""
        whole = self.pieces.of_token(token)
        if not whole:
            return None
        part = self.spoken(text, token)
        if part.is_spoken:
            pieces = whole if part.spoken == part.letters else self.pieces.of_tokens(self.spoken.llm.encode(part.spoken))
            return Heard(pieces, advances=True)
        return Heard(whole if part.letters.isspace() and not part.over else (), advances=False, ends=part.ends)


class CTCPrefixProcessor(LogitsProcessor):
    """Mixes the CTC prefix score into ``generate``, greedy or beam.

    Args:
        scorer: of the batch.
        pieces: of a token after a text.
        weight: w.
        end_ids: the LLM's end tokens.
        beams: rows of ``generate`` per utterance.
        drafts: what the CTC head heard, an untouched draft of each utterance; None for no candidates but the LLM's.
        candidates: how many of the LLM's best tokens are scored at most; the others are ruled out.
        margin: in nats; tokens that the LLM holds less likely than its best by more than this are ruled out too.
        floor: f, in nats: a candidate counts as no less likely to the LLM than its best by this.
        markup_bonus: b, in nats.
    """

    def __init__(
        self,
        scorer: CTCPrefixScorer,
        pieces: SpokenPieces,
        weight: float,
        end_ids: list[int],
        beams: int,
        drafts: Sequence[Draft] | None = None,
        candidates: int = 16,
        margin: float = 12.0,
        floor: float = 4.0,
        markup_bonus: float = 0.0,
    ) -> None:
        self.scorer, self.pieces, self.weight, self.end_ids = scorer, pieces, weight, end_ids
        self.beams, self.candidates, self.margin, self.floor = beams, candidates, margin, floor
        self.markup_bonus = markup_bonus
        # Of each utterance, the texts so far and where each of them stands in the draft.
        self._drafts: list[dict[tuple[int, ...], Draft]] | None = None if drafts is None else [{(): draft} for draft in drafts]
        start = scorer.start()
        # Of each utterance, the texts that may go on, and where their states are; what it does not hold has ended.
        self._known: list[dict[tuple[int, ...], tuple[Prefixes, int]]] = [
            {(): (start, utterance)} for utterance in range(len(scorer.log_probs))
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) of the next token, R = B x beams, given the tokens so far (R, U)."""
        return self.mix([row // self.beams for row in range(len(input_ids))], input_ids.tolist(), scores)

    def mix(self, utterances: Sequence[int], texts: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
        """The same for some utterances, whose texts may differ in length; the others stay where they are.

        Args:
            utterances: R of them; one may come several times, with different texts.
            texts: the tokens so far of each: of those that the last call for this utterance allowed.
            scores: (R, V) of the LLM.
        """
        device = self.scorer.log_probs.device
        language = scores.to(device).float().log_softmax(-1)
        mixed = torch.full_like(language, -torch.inf)
        mixed[:, self.end_ids[0]] = -1e9  # a row that has ended still needs something to pick
        prefixes = [(utterance, tuple(text)) for utterance, text in zip(utterances, texts, strict=True)]
        living = [row for row, (utterance, text) in enumerate(prefixes) if text in self._known[utterance]]
        if not living:
            return mixed.to(scores.device)
        states = Prefixes.collect([self._known[utterance][text] for utterance, text in (prefixes[row] for row in living)])
        likeliest = language[living].topk(self.candidates, dim=-1)
        likely = likeliest.values >= likeliest.values[:, :1] - self.margin
        shortlist = [tokens[mask].tolist() for tokens, mask in zip(likeliest.indices, likely, strict=True)]
        for tokens, token in zip(shortlist, self._expected([prefixes[row] for row in living]), strict=True):
            tokens += [token] if token is not None and token not in tokens else []
        written, floored = language, language.clamp(min=language.amax(-1, keepdim=True) - self.floor)
        language = torch.where(language.isneginf(), language, floored)  # what was ruled out before stays so
        found = [
            (index, token, self.pieces(prefixes[living[index]][1], token))
            for index in range(len(living))
            for token in shortlist[index]
            if token not in self.end_ids
        ]
        said = [(index, token, heard) for index, token, heard in found if heard is not None and heard.pieces]
        silent = [(index, token, heard.ends) for index, token, heard in found if heard is not None and not heard.pieces]
        triples = [(index, token, [piece + 1 for piece in heard.pieces]) for index, token, heard in said]
        owner = torch.tensor([index for index, _, _ in triples], device=device, dtype=torch.long)
        extended = self._extend(states.take(owner), [prefixes[living[index]][0] for index, _, _ in triples], triples)
        rows = torch.tensor(living, device=device)
        tokens = torch.tensor([token for _, token, _ in triples], device=device, dtype=torch.long)
        gain = (extended.score - states.score[owner]).float()
        # A text with more pieces than there are frames has no path, or only one through the padding of a batch: it is dead, and
        # from there on no word is any good.
        dead = states.score[owner].isneginf() | (gain <= IMPOSSIBLE / 2)
        gain[dead], extended.score[dead] = IMPOSSIBLE, -torch.inf
        mixed[rows[owner], tokens] = (1 - self.weight) * language[rows[owner], tokens] + self.weight * gain
        ending = torch.where(states.score.isneginf(), 0.0, states.complete - states.score).float()
        for end in self.end_ids:
            mixed[rows, end] = (1 - self.weight) * language[rows, end] + self.weight * ending
        # What says that all is said is to LLM and sound what an end token is, and from there on the sound has no say.
        by_sound = ending.scatter_reduce(0, owner, gain, "amax")
        nothing = ending.new_full((len(living),), -torch.inf)
        all_words = ending.new_zeros(len(living)).index_add(0, owner, written[rows[owner], tokens].exp()).log()
        at_best = (1 - self.weight) * all_words + self.weight * nothing.scatter_reduce(0, owner, gain, "amax")
        spread = nothing.scatter_reduce(0, owner, mixed[rows[owner], tokens], "amax") - at_best
        spread = torch.where(all_words.isneginf(), 0.0, spread) + (1 - self.weight) * self.markup_bonus
        for index, token, ends in silent:
            row = living[index]
            by_llm, fitting = (language, ending) if ends else (written, by_sound)
            mixed[row, token] = (1 - self.weight) * by_llm[row, token] + self.weight * fitting[index]
            mixed[row, token] += 0.0 if ends else spread[index]
        closed = Prefixes(states.ends_piece, states.ends_blank, states.last, states.complete)
        for utterance in utterances:
            self._known[utterance] = {}
        for number, (index, token, heard) in enumerate(said):
            utterance, text = prefixes[living[index]]
            self._known[utterance][*text, token] = (extended, number) if heard.advances else (states, index)
        for index, token, ends in silent:
            utterance, text = prefixes[living[index]]
            self._known[utterance][*text, token] = closed if ends else states, index
        return mixed.to(scores.device)

    def _expected(self, prefixes: Sequence[tuple[int, tuple[int, ...]]]) -> list[int | None]:
        """The token with which the draft goes on after each (utterance, text); None where it has ended."""
        if self._drafts is None:
            return [None] * len(prefixes)
        followed: dict[tuple[int, tuple[int, ...]], Draft] = {}
        for utterance, text in prefixes:
            draft = copy.copy(self._drafts[utterance][text[:-1]])
            for token in text[-1:]:
                draft.follow(token)
            followed[utterance, text] = draft
        for utterance, _ in prefixes:
            self._drafts[utterance] = {}
        for (utterance, text), draft in followed.items():
            self._drafts[utterance][text] = draft
        return [next(iter(followed[prefix].ahead(1)), None) for prefix in prefixes]

    def _extend(self, states: Prefixes, utterances: list[int], triples: list[tuple[int, int, list[int]]]) -> Prefixes:
        """Each state with all pieces of its token, one piece of every unfinished token at a time."""
        device = states.score.device
        utterance = torch.tensor(utterances, device=device, dtype=torch.long)
        for depth in range(max((len(classes) for _, _, classes in triples), default=0)):
            index = torch.tensor([n for n, (_, _, classes) in enumerate(triples) if len(classes) > depth], device=device)
            label = torch.tensor([classes[depth] for _, _, classes in triples if len(classes) > depth], device=device)
            longer = self.scorer.extend(states.take(index), utterance[index], label)
            states.ends_piece[index], states.ends_blank[index] = longer.ends_piece, longer.ends_blank
            states.last[index], states.score[index] = longer.last, longer.score
        return states
