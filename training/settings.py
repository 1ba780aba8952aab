"""Every setting of training, once: bounds and help on the field, values in pipelines.yaml, flags on top."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from shared.console import UserError, nearest
from shared.manifest import NAME_PATTERN
from shared.settings import Settings, pipelines_flag, read_section, validated

Activation = Literal["relu2", "gelu", "swiglu"]


class ModelSettings(Settings):
    """The shape of a GPT and its switches. Parameter counts follow from these alone."""

    vocab_size: int = Field(ge=257, le=65_536, description="tokens the model knows; at most what a uint16 holds")
    n_layer: int = Field(ge=1, le=128)
    n_embd: int = Field(ge=8, description="width")
    sequence_length: int = Field(1024, ge=8, description="tokens a training sequence holds")
    head_dim: int = Field(64, ge=2, multiple_of=2)
    n_kv_head: int | None = Field(None, ge=1, description="key and value heads; left out: as many as query heads")
    d_ff: int | None = Field(None, ge=1, description="width of the MLP; left out: 4 x n_embd")
    activation: Activation = Field("relu2", description="gelu is x * sigmoid(1.702 x); swiglu has a third matrix")
    qk_norm: Literal["rms", "layer", "none"] = Field("rms", description="norm of queries and keys, after RoPE")
    window_pattern: Literal["full", "alternating"] = Field("full", description="alternating: local, full, local, ...")
    window_size: int | None = Field(None, ge=1, description="tokens that a local layer looks back on, itself included")
    tie_weights: bool = Field(True, description="lm_head is wte")
    use_output_projection: bool = Field(True, description="h_post = output_projection(h_pre) before the tied head")
    output_projection_residual: bool = Field(False, description="h_post = h_pre + output_projection(h_pre)")
    use_confidence: bool = Field(True, description="a head that predicts how close h_post comes to the next token")

    @property
    def n_head(self) -> int:
        return self.n_embd // self.head_dim

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def ff_width(self) -> int:
        return self.d_ff or 4 * self.n_embd

    def window(self, layer: int) -> int | None:
        """Returns how many tokens a layer attends to, or None for all before it."""
        return self.window_size if self.window_pattern == "alternating" and layer % 2 == 0 else None

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.n_embd % self.head_dim:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of head_dim {self.head_dim}")
        if self.n_head % self.kv_heads:
            raise ValueError(f"{self.n_head} query heads cannot share n_kv_head {self.n_kv_head} evenly")
        if (self.window_pattern == "alternating") != (self.window_size is not None):
            raise ValueError("window_pattern alternating and window_size go together: neither has an effect alone")
        if self.use_output_projection and not self.tie_weights:
            raise ValueError("use_output_projection needs tie_weights: an untied lm_head would absorb the projection")
        if self.output_projection_residual and not self.use_output_projection:
            raise ValueError("output_projection_residual has no effect without use_output_projection")
        if self.use_confidence and not self.tie_weights:
            raise ValueError("use_confidence needs tie_weights: its target compares h_post with rows of wte")
        return self


class TokenizerSettings(Settings):
    """Byte-level BPE. The vocabulary's size belongs to the model."""

    max_digits: int = Field(2, ge=1, le=3, description="digits in one token at most")
    min_frequency: int = Field(2, ge=1, description="pairs seen less often are not merged")


class OptimizerSettings(Settings):
    """Learning rates by group. AdamW's are scaled by (n_embd / 768) ** -0.5 where scale_by_width says so."""

    wte_lr: float = Field(0.01, gt=0, description="AdamW, token embedding that is lm_head too")
    untied_wte_lr: float = Field(0.2, gt=0, description="AdamW, token embedding beside an untied lm_head")
    lm_head_lr: float = Field(0.004, gt=0, description="AdamW, untied lm_head")
    confidence_lr: float = Field(0.004, gt=0, description="AdamW, confidence head")
    norm_lr: float = Field(5e-4, gt=0, description="AdamW, weights of norms")
    scale_by_width: bool = True
    betas: tuple[float, float] = Field((0.8, 0.95), description="AdamW")
    eps: float = Field(1e-10, gt=0, description="AdamW")
    muon_lr: float = Field(0.02, gt=0, description="Muon, matrices of the blocks and the output projection")
    muon_iterations: int = Field(5, ge=1, le=5, description="of the orthogonalisation")
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    muon_momentum_start: float = Field(0.85, ge=0, lt=1)
    muon_momentum_steps: int = Field(300, ge=1, description="steps from the first momentum to the last")
    muon_weight_decay: float = Field(0.0, ge=0)
    muon_cautious_decay: bool = Field(False, description="decay only where the update points the same way")

    @model_validator(mode="after")
    def _has_effect(self) -> "OptimizerSettings":
        if self.muon_cautious_decay and not self.muon_weight_decay:
            raise ValueError("muon_cautious_decay has no effect while muon_weight_decay is 0")
        return self


class ConfidenceSettings(Settings):
    """How the confidence head learns."""

    target: Literal["cosine"] = Field("cosine", description="cosine(h_post, wte[t_exp]), never differentiated")
    trunk_gradient: bool = Field(True, description="let the confidence loss reach the blocks")
    loss_weight: float = Field(0.1, ge=0, description="beside the cross-entropy in nats")
    warmup_steps: int = Field(100, ge=0, description="steps over which the weight rises from 0")


class RecipeSettings(Settings):
    """How a model is trained, the machine aside: everything here decides the weights that come out."""

    batch_tokens: int = Field(65_536, ge=1, description="tokens an optimizer step sees, over all processes")
    steps: int | None = Field(None, ge=1, description="optimizer steps; left out: tokens_per_parameter decides")
    tokens_per_parameter: float = Field(20.0, gt=0, description="train on this many tokens for each parameter")
    seed: int = Field(0, ge=0, lt=2**32, description="of the initial weights and of the order of the documents")
    warmup_steps: int = Field(100, ge=0, description="steps until the learning rate is whole, at most")
    warmup_fraction: float = Field(0.02, ge=0, le=1, description="share of all steps that warm-up may take")
    cooldown_fraction: float = Field(0.4, ge=0, le=1, description="share of all steps over which the rate falls")
    final_lr_fraction: float = Field(0.05, ge=0, le=1, description="share of the learning rate at the last step")
    clip: float = Field(1.0, gt=0, description="largest norm of all gradients together")
    optimizer: OptimizerSettings = OptimizerSettings()
    confidence: ConfidenceSettings = ConfidenceSettings()


class LoopSettings(Settings):
    """What happens beside the training, and how often. None of it changes the weights, rounding aside."""

    micro_batch: int = Field(
        16, ge=1, description="sequences a process holds at a time, at most; on a CPU 4,096 tokens, at most"
    )
    evaluate_every: int = Field(250, ge=1, description="steps between looks at the held-out text")
    evaluate_tokens: int = Field(100_000, ge=1, description="held-out tokens of each part that such a look reads")
    save_every: int = Field(250, ge=1, description="steps between checkpoints; the best is one that had a look, too")
    sample_every: int = Field(1000, ge=1, description="steps between samples of text")
    inspect_every: int = Field(100, ge=1, description="steps between gradient norms by group")
    prompts: list[str] = Field(["Once upon a time", "The moon is"], min_length=1, description="how samples begin")


class PresetSettings(Settings):
    """A named model: its shape, and what of the recipe and the loop differs for it."""

    about: str
    model: ModelSettings
    recipe: dict[str, Any] = Field({}, description="what differs from the section recipe")
    loop: dict[str, Any] = Field({}, description="what differs from the section loop")


class TrainingFile(Settings):
    """pipelines.yaml, as far as training reads it."""

    tokenizer: TokenizerSettings = TokenizerSettings()
    recipe: RecipeSettings = RecipeSettings()
    loop: LoopSettings = LoopSettings()
    models: dict[str, PresetSettings]


class TrainingSettings(Settings):
    """All that decides what a run learns from a manifest, up to rounding; and the loop beside it."""

    preset: str
    model: ModelSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    recipe: RecipeSettings = RecipeSettings()
    loop: LoopSettings = LoopSettings()

    @cached_property
    def sequences_per_step(self) -> int:
        return self.recipe.batch_tokens // self.model.sequence_length

    @model_validator(mode="after")
    def _whole_sequences(self) -> "TrainingSettings":
        if self.recipe.batch_tokens % self.model.sequence_length:
            raise ValueError(
                f"batch_tokens {self.recipe.batch_tokens} is not a multiple of"
                f" sequence_length {self.model.sequence_length}"
            )
        return self


def _of_recipe(name: str) -> str | None:
    return RecipeSettings.model_fields[name].description


class PretrainFlags(Settings):
    """The command line of training.pretrain."""

    shards: Path = Field(description="manifest of the mix to train on")
    model: str | None = Field(None, description="preset of pipelines.yaml; left out: 10M with a GPU, tiny without")
    name: str | None = Field(None, pattern=NAME_PATTERN, description="of the run; left out: MIX-MODEL")
    tokenizer: Path | None = Field(None, description="tokenizer.json; left out: one for all mixes of the pool")
    steps: int | None = Field(None, ge=1, description=_of_recipe("steps"))
    tokens_per_parameter: float | None = Field(None, gt=0, description=_of_recipe("tokens_per_parameter"))
    batch_tokens: int | None = Field(None, ge=1, description=_of_recipe("batch_tokens"))
    micro_batch: int | None = Field(None, ge=1, description="sequences a process holds at a time, at most")
    seed: int | None = Field(None, ge=0, lt=2**32, description=_of_recipe("seed"))
    changes: tuple[str, ...] = Field(
        (),
        description="KEY=VALUE, any other setting, as often as needed: --set model.tie_weights=false",
        json_schema_extra={"flag": "set", "repeats": True},
    )
    processes: int | None = Field(None, ge=1, description="left out: one a GPU, or one on the CPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of products; auto: bf16 where it is fast"
    )
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile; auto: on GPUs")
    resume: bool = Field(False, description="fail when there is no checkpoint to go on from")
    allow_epochs: bool = Field(False, description="read the mix more than 100 times")
    dry_run: bool = Field(False, description="show the plan, train nothing")
    wandb: Literal["off", "offline", "online"] = Field("off", description="also track with Weights & Biases")
    data_dir: Path = Field(Path("data"), description="tokenizers and token shards")
    runs_dir: Path = Field(Path("runs"), description="where the run's folder goes")
    pipelines: Path = pipelines_flag()

    @model_validator(mode="after")
    def _said_once(self) -> "PretrainFlags":
        if self.steps is not None and self.tokens_per_parameter is not None:
            raise ValueError("--steps and --tokens-per-parameter both say how long to train: give one of them")
        for key in [change.partition("=")[0] for change in self.changes]:
            if any(key == change.partition("=")[0] for change in self._flags_as_changes()):
                raise ValueError(f"--set {key} is said by a flag too: give one of them")
        return self

    def settings_changes(self) -> list[str]:
        """Returns the flags that stand for settings, in the form of --set, and those of --set."""
        return [*self._flags_as_changes(), *self.changes]

    def _flags_as_changes(self) -> list[str]:
        recipe = {name: getattr(self, name) for name in ("steps", "tokens_per_parameter", "batch_tokens", "seed")}
        changes = [f"recipe.{name}={value}" for name, value in recipe.items() if value is not None]
        if self.tokens_per_parameter is not None:
            changes.append("recipe.steps=null")
        if self.micro_batch is not None:
            changes.append(f"loop.micro_batch={self.micro_batch}")
        return changes


def read_training_file(path: Path) -> TrainingFile:
    """Returns the sections of pipelines.yaml that training reads. Raises UserError naming the key that is wrong."""
    return read_section(TrainingFile, path)


def preset_settings(
    content: TrainingFile, path: Path, preset: str, changes: list[str] | None = None
) -> TrainingSettings:
    """Returns the settings of a preset, after changes of the form `recipe.optimizer.wte_lr=0.02`. Raises UserError."""
    if preset not in content.models:
        raise UserError(f"unknown model {preset}", nearest(preset, list(content.models)))
    chosen = content.models[preset]
    values = {
        "preset": preset,
        "model": chosen.model.model_dump(exclude_unset=True),
        "tokenizer": content.tokenizer.model_dump(exclude_unset=True),
        "recipe": _merged(content.recipe.model_dump(exclude_unset=True), chosen.recipe),
        "loop": _merged(content.loop.model_dump(exclude_unset=True), chosen.loop),
    }
    validated(TrainingSettings, values, f"{path}: models.{preset}")  # so that a wrong file is not blamed on a flag
    for change in changes or []:
        values = _merged(values, _parsed_change(change))
    return validated(TrainingSettings, values, "--set") if changes else validated(TrainingSettings, values, str(path))


def _parsed_change(change: str) -> dict[str, Any]:
    key, equals, value = change.partition("=")
    if not equals or "." not in key:
        raise UserError(f"--set {change}: it takes KEY=VALUE", "example: --set model.tie_weights=false")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {change}: {value} is not YAML", "quote it, or give a plain value") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `over` in it, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
