"""One optimizer step, and all the state that it changes: the model, its optimizers, fp16's loss scale.

batch -> micro-batches: forward, backward -> one all-reduce (DDP) -> clip -> AdamW and Muon
"""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from shared.console import UserError, say
from training.checkpoint import Checkpoint, load_weights
from training.confidence import loss_weight
from training.distributed import Place, gather_ranks, sum_ranks
from training.model import GPT
from training.optimizer import Optimizers, lr_factor
from training.settings import RecipeSettings, TrainingSettings

Batch = tuple[Tensor, Tensor]


class StepFigures(NamedTuple):
    """Figures of one step, over all processes; `norms` of gradients by group only where they were asked for."""

    loss: float  # cross-entropy, nats a token
    confidence_loss: float
    target_mean: float  # of the confidence target
    target_std: float  # within a micro-batch, on average
    lr_factor: float
    grad_norm: float  # before clipping
    norms: dict[str, float]
    is_finite: bool  # otherwise the step was not taken


class Learner:
    """A GPT that learns from batches, in step with those of the other processes."""

    def __init__(self, settings: TrainingSettings, dtype: torch.dtype, place: Place) -> None:
        self.recipe: RecipeSettings = settings.recipe
        self._place = place
        torch.manual_seed(self.recipe.seed + place.rank)
        self.gpt = GPT(settings.model, dtype).initialize(self.recipe.seed).to(place.device)
        self.optimizers = Optimizers(self.gpt, self.recipe.optimizer, place)
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=dtype == torch.float16)
        self._model: nn.Module = self.gpt

    def get_going(self, compiled: bool, batch: Batch) -> bool:
        """Compiles the model if that works, and links it to the other processes'. Returns whether it is compiled.

        The batch is only tried: no weight, gradient or random state changes.
        """
        is_compiled = compiled and self._compile(batch)
        if self._place.world_size > 1:
            ids = [self._place.device.index] if self._place.device.type == "cuda" else None
            with warnings.catch_warnings():  # of torch 2.13: broadcast_buffers is to get another name
                warnings.simplefilter("ignore", FutureWarning)
                self._model = DistributedDataParallel(
                    self._model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
                )
            self._try(batch)  # DDP settles on an order of summing in its first backward: not in that of a resumed step
        return is_compiled

    def learn(
        self, step: int, n_steps: int, batch: Batch, n_sequences: int, stopped: Callable[[], bool], inspect: bool
    ) -> StepFigures | None:
        """Takes one step, n_sequences of the batch at a time. Returns its figures, or None when stopped on the way.

        A step that is stopped changes nothing: it is taken anew when the run goes on.
        """
        weight = loss_weight(step, self.recipe.confidence)
        micro_batches = list(zip(*(part.view(-1, n_sequences, part.shape[1]) for part in batch), strict=True))
        sums = torch.zeros(4, device=self._place.device)
        for number, micro_batch in enumerate(micro_batches, 1):
            if stopped():
                self.optimizers.zero_grad()
                return None
            with self._no_exchange() if number < len(micro_batches) else nullcontext():
                losses = self._model(*map(self._moved, micro_batch), self.recipe.confidence)
                total = (losses.cross_entropy + weight * losses.confidence) / len(micro_batches)
                self._scaler.scale(total).backward()
            sums += torch.stack([part.detach() for part in losses])
        as_torch_has_it = cast("torch.optim.Optimizer", self.optimizers)
        self._scaler.unscale_(as_torch_has_it)
        norms = self.optimizers.gradient_norms() if inspect else {}
        grad_norm = float(clip_grad_norm_(self.gpt.parameters(), self.recipe.clip))
        factor = lr_factor(step, n_steps, self.recipe)
        # Under a loss scale a step that overflowed is left out, and the scale lowered.
        is_finite = self._scaler.is_enabled() or math.isfinite(grad_norm)
        if is_finite:
            self._scaler.step(as_torch_has_it, factor, step)
            self._scaler.update()
        self.optimizers.zero_grad()
        means = sum_ranks(sums, self._place) / (len(micro_batches) * self._place.world_size)
        loss, confidence_loss, target_mean, target_std = means.tolist()
        is_finite = is_finite and math.isfinite(loss)
        return StepFigures(loss, confidence_loss, target_mean, target_std, factor, grad_norm, norms, is_finite)

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Returns the tensors of a checkpoint by kind. All processes must ask."""
        return {"model": self.gpt.state_dict(), "optimizer": self.optimizers.state_tensors(), "rng": self._rng_states()}

    def loss_scale(self) -> dict[str, Any]:
        """Returns fp16's loss scale, empty where there is none."""
        return self._scaler.state_dict()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes on the state of a checkpoint. Raises UserError where it is another model's."""
        load_weights(self.gpt, checkpoint.tensors("model"), checkpoint.folder)
        try:
            self.optimizers.load_state_tensors(checkpoint.tensors("optimizer"))
        except ValueError as error:
            raise UserError(f"{checkpoint.folder}: {error}", "start anew under another --name") from None
        if scale := checkpoint.state.get("loss_scale"):
            self._scaler.load_state_dict(scale)
        rng, rank = checkpoint.tensors("rng"), self._place.rank
        if f"cpu.{rank}" in rng:  # a process that was not there keeps the state it has from the seed
            torch.set_rng_state(rng[f"cpu.{rank}"])
        if f"cuda.{rank}" in rng and self._place.device.type == "cuda":
            torch.cuda.set_rng_state(rng[f"cuda.{rank}"])

    def _moved(self, tokens: Tensor) -> Tensor:
        if self._place.device.type == "cuda":
            return tokens.pin_memory().to(self._place.device, non_blocking=True)
        return tokens

    def _no_exchange(self) -> Any:
        """Returns a context in which gradients add up in this process only."""
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()

    def _compile(self, batch: Batch) -> bool:
        compiled: Any = torch.compile(self.gpt)
        try:
            self._model = compiled
            self._try(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of which torch._dynamo's errors are kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            say(f"warning: torch.compile does not work here ({reason}); going on without it, which is slower")
            self._model = self.gpt
            return False
        return True

    def _try(self, batch: Batch) -> None:
        """Runs forward and backward, and forgets the gradients."""
        losses = self._model(*map(self._moved, batch), self.recipe.confidence)
        (losses.cross_entropy + losses.confidence).backward()
        self.optimizers.zero_grad()

    def _rng_states(self) -> dict[str, Tensor]:
        own = {"cpu": torch.get_rng_state()}
        if self._place.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state()
        gathered = {kind: gather_ranks(state, self._place) for kind, state in own.items()}
        return {
            f"{kind}.{rank}": state.clone() for kind, states in gathered.items() for rank, state in enumerate(states)
        }
