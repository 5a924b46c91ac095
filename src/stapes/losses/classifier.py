"""``classifier``: what is spoken of is to be seen in the speech embeddings. Classifier regulariser of arXiv 2509.04473.

    x = H as an image of one channel;  3 times: x = ReLU(Conv2d(x));  y^ = W mean(x) + b
    entities:   loss = sum over utterances of mean_c w_c BCE(y^_c, y_c)            y_c: is there an entity of tag c?
    sentiment:  loss = sum over utterances of w_y CE(y^, y)
    w_c = (number of all labels) / (number of labels of class c), over the training mixture

| paper | here | shape |
|---|---|---|
| adapter output | ``batch.speech`` | (B, K, D) |
| 3-layer 2-D CNN | ``convs`` | C channels of (K/2, D/2), (K/4, D/4), (K/8, D/8) |
| tags (the 7 combined ones of SLUE), or sentiments | ``labels`` | (B, 7) or (B, 3) |
| class weights w | ``class_weights`` | (7,) or (3,) |
| alpha = 0.2 of (1 - alpha) L_LLM + alpha L_classifier | the stage's weights: ``{next_token: 0.8, classifier: 0.2}`` | |

It is there in training only: nothing of it is used when the model answers.

Ours, where the paper's text was not to be had: kernels of 3, stride 2, the channels, a LayerNorm over each embedding before the
first (so that the scale of the LLM's space does not matter) and a mean over what is left. No layer normalises over a batch or
over time, and padding is zeroed between layers, so that an utterance is classified the same alone and in a batch; one embedding
is enough. The weight of a class multiplies its whole term, positive or negative. By default no weight is taken as higher than
``most_weight`` and their mean is made 1, so that rare classes cannot drown the LLM's loss; ``weighting: inverse`` is the
formula as it stands. A class that the mixture lacks has weight 0. An utterance without labels takes no part, one that is
labelled as without entities does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.errors import DataError
from stapes.losses.base import SpeechAndText, SpeechLoss
from stapes.text import tags
from stapes.types import Padded, Utterance

KERNEL, STRIDE = 3, 2
CLASSES: dict[str, tuple[str, ...]] = {"entities": tuple(tags.COMBINED), "sentiment": tags.SENTIMENTS}


class Classifier(SpeechLoss):
    """A CNN over the adapter's outputs that names entity tags or the sentiment; targets: labelled utterances.

    Args:
        llm_dim: D.
        labels: of which kind; of "both", each with its own classes and term.
        channels: of the three convolutions.
        weighting: of classes: "inverse" frequency, the same "capped" and with mean 1, or "none".
        most_weight: the cap.
    """

    class_weights: Tensor

    def __init__(
        self,
        llm_dim: int,
        labels: Literal["entities", "sentiment", "both"],
        channels: Sequence[int],
        weighting: Literal["capped", "inverse", "none"],
        most_weight: float,
    ) -> None:
        super().__init__()
        self.weighting, self.most_weight = weighting, most_weight
        self.kinds = tuple(CLASSES) if labels == "both" else (labels,)
        self.norm = nn.LayerNorm(llm_dim)
        widths = [1, *channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(narrow, wide, KERNEL, STRIDE, padding=KERNEL // 2) for narrow, wide in itertools.pairwise(widths)
        )
        self.sizes = [len(CLASSES[kind]) for kind in self.kinds]
        self.out = nn.Linear(widths[-1], sum(self.sizes))
        self.register_buffer("class_weights", torch.ones(sum(self.sizes)), persistent=False)

    def observe(self, mixture: Iterable[tuple[Utterance, float]]) -> None:
        """See ``Loss.observe``: count the labels of each class."""
        counts: dict[str, Counter[str]] = {kind: Counter() for kind in self.kinds}
        for row, weight in mixture:
            for kind in self.kinds:
                for name in self._named(row, kind) or ():
                    counts[kind][name] += weight  # type: ignore[assignment]
        if not any(counts.values()):
            found = f"no utterance has a label under '{' or '.join(self.kinds)}'"
            raise DataError("data.train", found, "what the classifier is to learn", "choose other `losses.classifier.labels`")
        self.class_weights.copy_(torch.cat([self._weights(counts[kind], CLASSES[kind]) for kind in self.kinds]))

    def _weights(self, counts: Counter[str], classes: Sequence[str]) -> Tensor:
        """Of the classes of one kind of labels; zeros where the mixture has none of that kind."""
        total = sum(counts.values())
        weights = torch.tensor([total / counts[name] if counts[name] else 0.0 for name in classes])
        if self.weighting == "capped" and total:
            weights = weights.clamp(max=self.most_weight)
            weights = weights / weights[weights > 0].mean()
        return (weights > 0).float() if self.weighting == "none" else weights

    def forward(self, batch: SpeechAndText) -> Tensor:
        """See ``SpeechLoss.forward``."""
        logits = self.logits(batch.speech).float()
        loss = logits.new_zeros(())
        for kind, own, weights in zip(
            self.kinds, logits.split(self.sizes, dim=-1), self.class_weights.split(self.sizes), strict=True
        ):
            named = [self._named(row, kind) for row in batch.utterances]
            hot = torch.tensor([[float(name in (names or ())) for name in CLASSES[kind]] for names in named], device=own.device)
            labelled = torch.tensor([names is not None for names in named], device=own.device)
            if kind == "entities":
                terms = (weights * F.binary_cross_entropy_with_logits(own, hot, reduction="none")).mean(-1)
            else:
                terms = -(weights * hot * own.log_softmax(-1)).sum(-1)
            loss = loss + terms[labelled].sum()
        return loss

    def logits(self, speech: Padded) -> Tensor:
        """(B, K, D) -> (B, C), from the real embeddings only."""
        image, lengths = self.norm(speech.zero_padding().values)[:, None], speech.lengths.to(speech.values.device)
        image = image.masked_fill(~speech.mask[:, None, :, None], 0.0)
        for conv in self.convs:
            image = F.relu(conv(image))
            lengths = (lengths - 1) // STRIDE + 1
            real = torch.arange(image.shape[2], device=image.device) < lengths[:, None]
            image = image.masked_fill(~real[:, None, :, None], 0.0)
        return self.out(image.float().mean(3).sum(2) / lengths[:, None])

    def target_count(self, answers: Sequence[Sequence[int]], utterances: Sequence[Utterance]) -> int:
        """Labelled utterances; one with both kinds of labels counts twice where both are learnt."""
        return sum(self._named(row, kind) is not None for row in utterances for kind in self.kinds)

    def _named(self, row: Utterance, kind: str) -> list[str] | None:
        """The classes of an utterance's labels of one kind, one for each; None where it has no such labels."""
        where = row.source or row.id
        if kind == "sentiment":
            return None if row.sentiment is None else [tags.sentiment(row.sentiment, where)]
        if row.entities is None:
            return None
        found = (tags.combined(entity.label, where) for entity in row.entities)
        return [tag for tag in found if tag is not None]
