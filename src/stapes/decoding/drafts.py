"""Greedy search in fewer steps: what the CTC head heard is the draft, and the LLM checks many of its tokens at once.

A step of an LLM takes little longer for a few positions than for one, since its weights have to be read either way. So each
step, the one that reads the prompt included, reads the next tokens of the draft too. As long as the LLM would have written what
the draft says, its tokens are kept; the first that it would not have written is replaced by its own, and what follows in the
draft is taken up again, be it in the middle of a word, where its letters fit best. What comes out is what plain greedy search
writes (speculative decoding, arXiv 2211.17192, with a draft that is there already); only the number of steps differs. Rows that
have ended leave the batch.

Each row of a batch goes on at its own pace: positions that were read in vain for it, but not for all, are masked and stay in
the key-value cache. So of a draft that went wrong, less is read in the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from stapes.decoding.spoken import Listen
from stapes.llms import LLM

POSITIONS = 64  # of all rows together in one step, the prompt apart (ours): beyond that, a CPU's time grows with them
MOST = 16  # positions of one row in one step (ours)
LEAST = 3  # of the draft, after a step in which none of it was right (ours)

Choose = Callable[[list[int], list[list[int]], Tensor], list[int]]


class Draft:
    """A text that is expected, and how far into it another text, which grows, has come.

    Args:
        text: as the LLM would write it, with the space before the first word.
        llm: whose tokens the other text is made of.
        listen: which letters of the other text count (``Task.listen``): markup is in no draft. None for all of them.
    """

    def __init__(self, text: str, llm: LLM, listen: Listen | None = None) -> None:
        self.text, self.llm, self.listen, self._state = text, llm, listen, ""
        self._letters = np.array([ord(letter) for letter in text], dtype=np.int64)
        # Edit distance of the other text to each prefix of the draft.
        self._distances = np.arange(len(text) + 1)

    def follow(self, token: int) -> None:
        """The other text has one more token."""
        places = np.arange(len(self._distances))
        letters = self.llm.spell(token)
        if self.listen is not None:
            self._state, letters = self.listen(self._state, letters)
        for letter in letters:
            before = self._distances
            replaced = before[:-1] + (self._letters != ord(letter))
            after = np.concatenate([before[:1] + 1, np.minimum(replaced, before[1:] + 1)])
            # One letter of the draft after the other may be passed over, at the cost of one each.
            self._distances = np.minimum.accumulate(after - places) + places

    def ahead(self, count: int) -> list[int]:
        """The next tokens after the prefix that is nearest to the other text; of several, the longest."""
        nearest = len(self.text) - int(np.argmin(self._distances[::-1]))
        return self.llm.encode(self.text[nearest:])[:count]


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
    trusted = [MOST for _ in drafts]  # tokens of each draft that are read in the next step
    while True:
        most = max(1, min(MOST, POSITIONS // len(living)))
        ahead = [drafts[row].ahead(min(most - 1, trusted[row])) for row in living]
        ids, real = _padded(ahead, llm.end_id, mask.device)
        start = mask.shape[1]
        mask = torch.cat([mask, real], dim=1)
        logits = llm.extend(torch.cat([embeddings, llm.embed(ids)], dim=1), mask, cache, keep=1 + ids.shape[1])
        agreeing = list(range(len(living)))
        for depth in range(logits.shape[1]):
            rows = [living[index] for index in agreeing]
            wanted = choose(rows, [texts[row] for row in rows], logits[agreeing, depth])
            still = []
            for index, row, token in zip(agreeing, rows, wanted, strict=True):
                texts[row].append(token)
                drafts[row].follow(token)
                if ahead[index][depth : depth + 1] == [token] and token not in llm.end_ids:
                    still.append(index)
                else:
                    mask[index, start + depth :] = False
                    trusted[row] = LEAST + 2 * depth
            agreeing = still
            if not agreeing:
                break
        if in_vain := start + depth - mask.shape[1]:
            cache.crop(in_vain)
            mask = mask[:, :in_vain]
        kept = [index for index, row in enumerate(living) if texts[row][-1] not in llm.end_ids]
        if not kept:
            return texts
        if len(kept) < len(living):
            cache.batch_select_indices(torch.tensor(kept, device=mask.device))
            mask, living = mask[kept], [living[index] for index in kept]
        embeddings = llm.embed(torch.tensor([[texts[row][-1]] for row in living], device=mask.device))
        mask = torch.cat([mask, mask.new_ones(len(living), 1)], dim=1)


def _padded(rows: list[list[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (R, U) of rows, and (R, U) which are not filled up."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.long, device=device)
    sizes = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < sizes[:, None]
