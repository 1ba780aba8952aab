"""The confidence head's target and its place in the loss. The head itself is one linear map of h_pre, in model.py.

To try another target, write its function here and name it in TARGETS and ConfidenceSettings.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.settings import ConfidenceSettings


@torch.no_grad()
def cosine_target(h_post: Tensor, h_exp: Tensor) -> Tensor:
    """Cosine of the prediction and the expected token's embedding. h_post, h_exp: (B, T, C). Returns (B, T) in [-1, 1].

    Detached: with a gradient the model raises the target instead of meeting it (FINDINGS, what the notes report).
    """
    return F.cosine_similarity(h_post.float(), h_exp.float(), dim=-1)


TARGETS = {"cosine": cosine_target}


def loss_weight(step: int, settings: ConfidenceSettings) -> float:
    """Returns the weight of the confidence loss at a step counted from 0: a linear rise, then constant."""
    risen = 1.0 if step >= settings.warmup_steps else step / settings.warmup_steps
    return settings.loss_weight * risen
