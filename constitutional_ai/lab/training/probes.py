"""What the inner layers of a lab model are made to know while it is trained.

A verdict gives a judge one bit a document. From that alone the S model did not learn in 24 million
tokens whether a refusal names the deed that was asked for. Two linear readers of the hidden states,
which are thrown away after training, ask at every token for what a verdict needs: has this word
occurred before, and does this part of an answer belong to its request? The second is the
replaced-token detection of ELECTRA (Clark et al. 2020, arXiv 2003.10555, section 2), with errors
that the corpus makes on purpose in the taught topics.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from constitutional_ai.lab.training.batches import Batch
from constitutional_ai.lab.world.tokenizer import END

SEEN_LAYERS = (1, 2, 3)  # the readers look after these layers; 0 would be the embedding
WRONG_LAYERS = (2, 3)
SEEN_WEIGHT = 1.0
WRONG_WEIGHT = 2.0


class Probes(nn.Module):
    """A linear reader for each property and layer; ``width`` is the model's hidden size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen = nn.ModuleList(nn.Linear(width, 1) for _ in SEEN_LAYERS)
        self.wrong = nn.ModuleList(nn.Linear(width, 1) for _ in WRONG_LAYERS)
        for p in self.parameters():
            nn.init.zeros_(p)

    def losses(self, states: tuple[Tensor, ...], batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean binary cross-entropies (seen, wrong) in nats over tokens and layers.

        ``states``: hidden states (documents, time, width) after the embedding and each layer.
        ``wrong`` is 0 for a batch in which no answer is judged.
        """
        words = batch.ids > END
        seen = [
            _loss(reader, states[layer][words], seen_before(batch.ids)[words])
            for layer, reader in zip(SEEN_LAYERS, self.seen, strict=True)
        ]
        judged = batch.marks >= 0
        wrong = [
            _loss(reader, states[layer][judged], batch.marks[judged] == 1)
            for layer, reader in zip(WRONG_LAYERS, self.wrong, strict=True)
        ]
        return torch.stack(seen).mean(), torch.stack(wrong).mean().nan_to_num()


def _loss(reader: nn.Module, states: Tensor, truth: Tensor) -> Tensor:
    states = states.float()
    logits = reader(F.rms_norm(states, states.shape[-1:]))[:, 0]
    return F.binary_cross_entropy_with_logits(logits, truth.float())


def seen_before(ids: Tensor) -> Tensor:
    """(documents, time): whether the same token stands at an earlier place of its document."""
    length = ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril_(-1)
    return ((ids[:, :, None] == ids[:, None, :]) & earlier).any(-1)
