"""AdamW over the decoder, the learning rate by step, and the running average of the weights."""

import math

import torch
from torch import Tensor

from segic.decoder import Decoder
from segic.training.recipe import Optimizer, Recipe


def make_optimizer(decoder: Decoder, how: Optimizer) -> torch.optim.AdamW:
    """decay = "matrices": weight decay leaves biases, norms and gains alone."""
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    decayed = [p for p in parameters if how.decay == "all" or p.ndim > 1]
    rest = [p for p in parameters if how.decay == "matrices" and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": how.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=how.lr, betas=(how.betas[0], how.betas[1]))


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of step 0, 1, ..."""
    how = recipe.schedule
    rate = recipe.optimizer.lr
    if how.shape == "cosine":
        progress = step / max(1, recipe.steps)
        rate *= how.floor + (1 - how.floor) * 0.5 * (1 + math.cos(math.pi * progress))
    elif how.shape == "steps":
        passed = sum(step >= epochs * recipe.steps_per_epoch for epochs in how.milestones)
        rate *= how.factor**passed
    if how.warmup:
        rate *= min(1.0, (step + 1) / how.warmup)
    return rate


class Average:
    """An exponential average of all tensors of the decoder. decay 0: the weights themselves.

    The decay grows from nearly 0, so that the random first weights are soon forgotten.
    """

    def __init__(self, decoder: Decoder, decay: float):
        self.decay = decay
        self.tensors: dict[str, Tensor] = {k: v.detach().clone() for k, v in decoder.state_dict().items()}

    @torch.no_grad()
    def update(self, decoder: Decoder, steps: int) -> None:
        """After the optimizer's step number `steps`, counted from 1."""
        decay = min(self.decay, (steps + 1) / (steps + 10)) if self.decay else 0.0
        for key, value in decoder.state_dict().items():
            self.tensors[key].lerp_(value, 1 - decay)
