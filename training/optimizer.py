"""The optimizer and the schedule: AdamW for embeddings, heads and norms, Muon for the matrices between.

model -> groups, by the names of its parameters -> step(lr_factor(step, n_steps, recipe), step), once gradients are
averaged over processes and clipped. checkpoint.py keeps state_tensors(); settings.py holds the rates.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.distributed import Place, gather_ranks, multiplies_bf16_fast
from training.settings import OptimizerSettings, RecipeSettings

GROUPS = {
    "muon": r"blocks\.\d+\.(attention\.(c_q|c_k|c_v|c_proj)|mlp\.(fc1|fc2|gate))\.weight|output_projection\.weight",
    "wte": r"wte\.weight",
    "lm_head": r"lm_head\.weight",
    "confidence": r"confidence_head\.weight",
    "norms": r"blocks\.\d+\.attention\.(q_norm|k_norm)\.weight",
}
REFERENCE_WIDTH = 768  # n_embd at which AdamW's rates are as in the settings

# Polynomials a x + b x^3 + c x^5. One after the other they bring singular values in [0.001, 1] within 0.125 of 1: each
# comes closest to 1, of all (a, b, c), on the range that those before it leave (Polar Express, Amsel et al. 2025, arXiv
# 2505.16932), with 1% of room at the top for rounding in bf16. tests/test_optimizer.py derives them.
POLYNOMIALS = (
    (8.3868931243, -24.3713106428, 17.7264116556),
    (4.1430119844, -3.0186177669, 0.5526501810),
    (3.9311884328, -2.8741133976, 0.5367222644),
    (3.2827976652, -2.4165537065, 0.4865308892),
    (2.2849749755, -1.6323601560, 0.4030660870),
)


def lr_factor(step: int, n_steps: int, recipe: RecipeSettings) -> float:
    """Returns the share of the learning rates at a step of 0 to n_steps - 1: a rise, a plateau and a straight fall.

    Where rise and fall overlap, the smaller counts.
    """
    n_warmup = min(recipe.warmup_steps, math.ceil(recipe.warmup_fraction * n_steps))
    n_cooldown = recipe.cooldown_fraction * n_steps
    rise = min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0
    above_final = min(1.0, (n_steps - 1 - step) / n_cooldown) if n_cooldown else 1.0
    return min(rise, recipe.final_lr_fraction + (1 - recipe.final_lr_fraction) * above_final)


def group_of(name: str) -> str:
    """Returns the group of a parameter. Raises ValueError for a name that fits none."""
    for group, pattern in GROUPS.items():
        if re.fullmatch(pattern, name):
            return group
    raise ValueError(f"parameter {name} fits no group of the optimizer: {', '.join(GROUPS)}")


def orthogonalized(matrices: Tensor, n_iterations: int, dtype: torch.dtype) -> Tensor:
    """Returns nearly U V^T for each matrix U S V^T of (N, rows, columns), in `dtype`; all zero for a zero matrix."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / _norms(x)
    rounded = x.to(dtype)
    # The fourth root of the sum of s^4 bounds the largest singular value, more closely than the Frobenius norm does.
    x = (x / _norms(rounded @ rounded.mT).sqrt()).to(dtype)
    for a, b, c in POLYNOMIALS[:n_iterations]:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _norms(matrices: Tensor) -> Tensor:
    """Returns Frobenius norms (N, 1, 1) in fp32, never 0."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    return norms.clamp_min(1e-18)


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape, by name, and their momentum (N, rows, columns) in the same order."""

    parameters: dict[str, nn.Parameter]
    momentum: Tensor


class Muon:
    """Momentum, orthogonalized (Jordan et al. 2024), over matrices stacked by shape and shared out among processes.

    Every process keeps the whole momentum, so that checkpoints do not depend on how many there are.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], settings: OptimizerSettings, place: Place) -> None:
        self._settings, self._place = settings, place
        self._dtype = torch.bfloat16 if multiplies_bf16_fast(place.device) else torch.float32
        by_shape: dict[torch.Size, dict[str, nn.Parameter]] = {}
        for name, parameter in parameters.items():
            by_shape.setdefault(parameter.shape, {})[name] = parameter
        self._stacks = [
            Stack(alike, torch.zeros(len(alike), *shape, device=place.device)) for shape, alike in by_shape.items()
        ]

    def step(self, lr: float, step: int) -> None:
        """Changes the matrices by their gradients."""
        settings = self._settings
        warmth = min(1.0, step / settings.muon_momentum_steps)
        mu = settings.muon_momentum_start + (settings.muon_momentum - settings.muon_momentum_start) * warmth
        for stack in self._stacks:
            weights: list[Tensor] = list(stack.parameters.values())
            directions = torch.stack(cast("list[Tensor]", [weight.grad for weight in weights]))
            stack.momentum.lerp_(directions, 1 - mu)
            directions.lerp_(stack.momentum, mu)  # Nesterov
            rows, columns = directions.shape[1:]
            updates = self._orthogonalized_together(directions).float() * max(1, rows / columns) ** 0.5
            if settings.muon_weight_decay:
                decay = settings.muon_weight_decay * torch.stack(weights)
                updates += decay * (decay * updates > 0) if settings.muon_cautious_decay else decay
            torch._foreach_add_(weights, updates.unbind(), alpha=-lr)

    def _orthogonalized_together(self, directions: Tensor) -> Tensor:
        """Returns orthogonalized(directions), of which each process computes an equal part."""
        size = math.ceil(len(directions) / self._place.world_size)
        mine = directions[self._place.rank * size : (self._place.rank + 1) * size]
        mine = orthogonalized(mine, self._settings.muon_iterations, self._dtype)
        mine = F.pad(mine, (0, 0, 0, 0, 0, size - len(mine)))  # the last parts may be short
        return gather_ranks(mine, self._place).flatten(0, 1)[: len(directions)]

    def state_tensors(self) -> dict[str, Tensor]:
        """Returns the momentum of each matrix, by name."""
        return {
            f"momentum.{name}": momentum
            for stack in self._stacks
            for name, momentum in zip(stack.parameters, stack.momentum, strict=True)
        }


class Optimizers:
    """AdamW and Muon over all parameters of a model, each in exactly one named group."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings, place: Place) -> None:
        """The model itself, not wrapped. Raises ValueError for a parameter that fits no group."""
        self.groups: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            self.groups.setdefault(group_of(name), {})[name] = parameter
        self._rates = _rates(self.groups, settings)
        self._muon = Muon(self.groups["muon"], settings, place)
        by_adamw = [group for group in self.groups if group != "muon"]
        self._adamw = torch.optim.AdamW(
            [{"name": group, "params": list(self.groups[group].values())} for group in by_adamw],
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=0.0,
            fused=True,  # on the CPU too
        )
        # AdamW would make its state at the first step; made here, a new optimizer takes that of a checkpoint in place.
        self._adamw_names = {name: p for group in by_adamw for name, p in self.groups[group].items()}
        for parameter in self._adamw_names.values():
            self._adamw.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """All parameters, as GradScaler asks any optimizer for them."""
        return [{"params": list(group.values())} for group in self.groups.values()]

    def learning_rates(self, lr_factor: float) -> dict[str, float]:
        """Returns the learning rate of each group."""
        return {group: rate * lr_factor for group, rate in self._rates.items()}

    @torch.no_grad()
    def step(self, lr_factor: float, step: int) -> None:
        """Changes all parameters by their gradients, which every process holds alike; steps count from 0."""
        rates = self.learning_rates(lr_factor)
        for group in self._adamw.param_groups:
            group["lr"] = rates[group["name"]]
        self._adamw.step()
        self._muon.step(rates["muon"], step)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for group in self.groups.values():
            for parameter in group.values():
                parameter.grad = None

    def gradient_norms(self) -> dict[str, float]:
        """Returns the norm of each group's gradients, together."""
        gradients = [[p.grad for p in group.values() if p.grad is not None] for group in self.groups.values()]
        norms = torch.stack([nn.utils.get_total_norm(group) for group in gradients]).tolist()
        return dict(zip(self.groups, norms, strict=True))

    def state_tensors(self) -> dict[str, Tensor]:
        """Returns the whole state, flat, as exp_avg.wte.weight; the tensors are the optimizer's own, not copies."""
        state = self._muon.state_tensors()
        for name, parameter in self._adamw_names.items():
            kept: dict[str, Any] = self._adamw.state[parameter]
            state |= {
                f"adamw_step.{name}": kept["step"],
                f"exp_avg.{name}": kept["exp_avg"],
                f"exp_avg_sq.{name}": kept["exp_avg_sq"],
            }
        return state

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Takes on a state that state_tensors() gave. Raises ValueError for one of another model."""
        own = self.state_tensors()
        wrong = own.keys() ^ tensors.keys()
        wrong |= {name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape}
        if wrong:
            raise ValueError(f"not the state of this model's optimizer: {', '.join(sorted(wrong)[:3])}")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _rates(groups: dict[str, dict[str, nn.Parameter]], settings: OptimizerSettings) -> dict[str, float]:
    """Returns the learning rate of each group at a factor of 1."""
    n_embd = groups["wte"]["wte.weight"].shape[1]
    scale = (n_embd / REFERENCE_WIDTH) ** -0.5 if settings.scale_by_width else 1.0
    rates = {
        "muon": settings.muon_lr,
        "wte": scale * (settings.untied_wte_lr if "lm_head" in groups else settings.wte_lr),
        "lm_head": scale * settings.lm_head_lr,
        "confidence": scale * settings.confidence_lr,
        "norms": settings.norm_lr,
    }
    return {group: rates[group] for group in groups}
