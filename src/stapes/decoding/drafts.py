"""Greedy search in fewer steps: what the CTC head heard is the draft, and the LLM checks many of its tokens at once.

A step of an LLM takes little longer for a few positions than for one, since its weights have to be read either way. So each
step reads the last token together with the next tokens of the draft. As long as the LLM would have written what the draft says,
its tokens are kept; the first that it would not have written is replaced by its own, and what follows in the draft is taken up
again where it fits best. What comes out is what plain greedy search writes (speculative decoding, arXiv 2211.17192, with a
draft that is there already); only the number of steps differs. Rows that have ended leave the batch.

Positions that were read in vain are masked and stay in the key-value cache: each row of a batch goes on at its own pace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from stapes.llms import LLM

POSITIONS = 64  # of all rows together in one step (ours): beyond that, a CPU's time grows with them
MOST = 16  # positions of one row in one step (ours)

Choose = Callable[[list[int], list[list[int]], Tensor], list[int]]


class Draft:
    """A text that is expected, and how far into it another text, which grows, has come.

    Args:
        tokens: of the draft, without an end token.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        # Edit distance of the other text to each prefix of the draft.
        self.distances = list(range(len(self.tokens) + 1))

    def follow(self, token: int) -> None:
        """The other text has one more token."""
        before, after = self.distances, [self.distances[0] + 1]
        for index, drafted in enumerate(self.tokens):
            after.append(min(before[index] + (drafted != token), before[index + 1] + 1, after[index] + 1))
        self.distances = after

    def ahead(self, count: int) -> list[int]:
        """The next tokens after the prefix that is nearest to the other text; of several, the longest."""
        nearest = min(range(len(self.distances)), key=lambda index: (self.distances[index], -index))
        return self.tokens[nearest : nearest + count]


@torch.inference_mode()
def search(llm: LLM, embeddings: Tensor, mask: Tensor, drafts: Sequence[Draft], choose: Choose) -> list[list[int]]:
    """Greedy search with drafts.

    Args:
        llm: one that ``can_rewind``.
        embeddings: (B, L, D) of the prompts, padded on the left.
        mask: (B, L) bool.
        drafts: what each row is expected to say.
        choose: (rows, their tokens so far, scores (R, V) of the next one) -> the next token of each. It has to end every row.

    Returns:
        The tokens of each row, its end token last.
    """
    cache = DynamicCache()
    texts: list[list[int]] = [[] for _ in drafts]
    living = list(range(len(drafts)))
    chosen = choose(living, texts, llm.extend(embeddings, mask, cache, keep=1)[:, -1])
    while True:
        for row, token in zip(living, chosen, strict=True):
            texts[row].append(token)
            drafts[row].follow(token)
        kept = [index for index, row in enumerate(living) if texts[row][-1] not in llm.end_ids]
        if not kept:
            return texts
        if len(kept) < len(living):
            cache.batch_select_indices(torch.tensor(kept, device=mask.device))
            mask, living = mask[kept], [living[index] for index in kept]
        size = max(1, min(MOST, POSITIONS // len(living)))
        ahead = [drafts[row].ahead(size - 1) for row in living]
        blocks, real = _blocks([texts[row][-1] for row in living], ahead, llm.end_id, mask.device)
        start = mask.shape[1]
        mask = torch.cat([mask, real], dim=1)
        logits = llm.extend(llm.embed(blocks), mask, cache)
        chosen = [0] * len(living)
        agreeing = list(range(len(living)))
        for depth in range(blocks.shape[1]):
            rows = [living[index] for index in agreeing]
            wanted = choose(rows, [texts[row] for row in rows], logits[agreeing, depth])
            still = []
            for index, row, token in zip(agreeing, rows, wanted, strict=True):
                if ahead[index][depth : depth + 1] == [token]:
                    texts[row].append(token)
                    drafts[row].follow(token)
                    still.append(index)
                else:
                    chosen[index] = token
                    mask[index, start + depth + 1 :] = False
            agreeing = still
            if not agreeing:
                break


def _blocks(last: list[int], ahead: list[list[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (R, U) of the last token of each row and its draft, and (R, U) which are not filled up."""
    width = 1 + max(map(len, ahead))
    rows = [[token, *drafted] for token, drafted in zip(last, ahead, strict=True)]
    ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows], device=device)
    sizes = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < sizes[:, None]
