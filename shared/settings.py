"""One flow of settings: class defaults < pipelines.yaml < command line -> one frozen object, printed, hashed, saved."""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from shared.console import UserError, nearest

AnySettings = TypeVar("AnySettings", bound=BaseModel)
PIPELINES_FILE = Path(__file__).resolve().parent.parent / "pipelines.yaml"
# The sections of pipelines.yaml. Each package reads its own, and knows a misspelt one from a neighbour's.
SECTIONS = (
    *("default_profile", "profiles", "sources", "label_sets", "evaluations"),  # curation
    *("fetching", "cleaning", "dedup", "classifier", "grading", "mix", "executor"),
    *("tokenizer", "recipe", "loop", "models"),  # training
    "pipelines",
)


class Settings(BaseModel):
    """Base of every settings class: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def pipelines_flag() -> Any:
    """Returns the field of the flag --pipelines, which names another settings file."""
    return Field(PIPELINES_FILE, description="settings file", json_schema_extra={"default_text": "pipelines.yaml"})


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns a YAML file's mapping. Raises UserError naming the line that cannot be read."""
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise UserError(f"{path} not found", "give the path of a pipelines.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}", "mend that line") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings", "see pipelines.yaml of the checkout for the layout")
    return content


def read_section(kind: type[AnySettings], path: Path) -> AnySettings:
    """Returns the sections of a settings file that `kind` has fields for. Raises UserError naming the key in error."""
    content = read_yaml(path)
    for key in content:
        if key not in SECTIONS:
            raise UserError(f"{path}: {key} is not a setting", nearest(str(key), SECTIONS))
    return validated(kind, {key: value for key, value in content.items() if key in kind.model_fields}, str(path))


def named_pipelines_file() -> Path:
    """Returns the settings file that the command line names: its values are the defaults of the other flags."""
    args = sys.argv[1:]
    named = [args[i + 1] for i in range(len(args) - 1) if args[i] == "--pipelines"]
    named += [arg.partition("=")[2] for arg in args if arg.startswith("--pipelines=")]
    return Path(named[-1]) if named else PIPELINES_FILE


def validated(kind: type[AnySettings], values: dict[str, Any], where: str) -> AnySettings:
    """Returns `kind(**values)`. Raises UserError naming the key, its value and its bounds or nearest spelling."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        if not location:
            raise UserError(f"{where}: {_plain(first['msg'])}", "change one of them") from None
        owner = _model_at(kind, location[:-1])
        path = f"{where}: {'.'.join(location)}"
        if first["type"] == "extra_forbidden":
            known = sorted(owner.model_fields) if owner else []
            raise UserError(f"{path} is not a setting", nearest(location[-1], known)) from None
        if first["type"] == "missing":
            raise UserError(f"{path} is required", "add it") from None
        field = owner.model_fields.get(location[-1]) if owner else None
        value = "" if isinstance(first["input"], dict) else f" {first['input']}"
        raise UserError(f"{path}{value}: {_plain(first['msg'])}", _bounds(field)) from None


def parse_command(
    kind: type[AnySettings],
    about: str,
    example: str,
    defaults: dict[str, Any] | None = None,
    args: list[str] | None = None,
) -> AnySettings:
    """Returns `kind` with its fields taken from the command line, and from `defaults` where a flag is not given.

    A field's json_schema_extra may say that it is `positional`, that it `repeats` (--set A --set B), or what other name
    its `flag` has. Raises UserError.
    """
    import tyro

    defaults = defaults or {}
    given = sys.argv[1:] if args is None else args
    may_be_empty = {_flag(name, field) for name, field in kind.model_fields.items() if field.annotation is str}
    for before, arg in zip(["", *given], given, strict=False):
        is_empty = (not arg and before not in may_be_empty) or re.fullmatch(r"--[^=]+=", arg)
        if is_empty and arg.rstrip("=") not in may_be_empty:
            raise UserError(f"{arg.rstrip('=') or before} has an empty value", "give it one, or leave it out")
    fields = [
        (
            name,
            _flag_type(name, field),
            dataclasses.field(default=defaults.get(name, field.get_default(call_default_factory=True))),
        )
        if name in defaults or not field.is_required()
        else (name, _flag_type(name, field))
        for name, field in sorted(kind.model_fields.items(), key=lambda item: item[0] not in kind.__annotations__)
    ]  # its own flags first, inherited ones after
    flags = dataclasses.make_dataclass(kind.__name__, fields, kw_only=True)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: Any
            parsed, unknown = tyro.cli(
                flags,
                args=args,
                prog=f"python -m {_module_name()}",
                description=f"{about}\n\nExample: {example}",
                return_unknown_args=True,
            )
    except SystemExit as leave:
        if leave.code in (0, None):
            raise
        raise _unreadable(_first_sentence(said.getvalue()), kind, given) from None
    names = [_flag(name, field) for name, field in kind.model_fields.items()]
    if unknown:
        flag = unknown[0].partition("=")[0]
        is_flag = flag.startswith("-")
        hint = nearest(flag, names) if is_flag else f"example: {example}"
        raise UserError(f"{flag} is not {'a flag' if is_flag else 'an argument'} of this command", hint)
    return _validated_flags(kind, vars(parsed))


def _unreadable(told: str, kind: type[BaseModel], given: Sequence[str]) -> UserError:
    """Returns what tyro told of a value that it could not read, as the flag, its value and what it takes."""
    for name, field in kind.model_fields.items():
        flag = _flag(name, field)
        types: list[Any] = [arg for arg in get_args(field.annotation) or [field.annotation] if arg is not type(None)]
        takes = {int: "a whole number", float: "a number"}.get(types[0], "one of " + ", ".join(map(str, types)))
        value = next((given[i + 1] for i in range(len(given) - 1) if given[i] == flag), None)
        if re.search(rf"(?<![\w-]){flag}(?![\w-])", told) and value is not None:
            return UserError(f"{flag} {value}: it takes {takes}", _bounds(field))
    return UserError(told, f"python -m {_module_name()} --help")


def _validated_flags(kind: type[AnySettings], values: dict[str, Any]) -> AnySettings:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        flag = f"{_flag(name, kind.model_fields[name])} {first['input']}: " if name else ""
        raise UserError(f"{flag}{_plain(first['msg'])}", _bounds(kind.model_fields.get(name))) from None


def _plain(message: str) -> str:
    return re.sub(r"^(Value error, |Input )", "", message)


def _flag_type(name: str, field: FieldInfo) -> Any:
    import tyro

    kind: Any = field.annotation
    inner = [arg for arg in get_args(kind) if arg is not type(None)]
    optional = type(None) in get_args(kind)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if extra.get("positional"):
        metavar: str | None = name.upper()
    else:
        metavar = inner[0].__name__.upper() if optional and isinstance(inner[0], type) else None
    default = extra.get("default_text")
    argument = tyro.conf.arg(
        name=str(extra["flag"]) if "flag" in extra else None,
        help=field.description,
        metavar=metavar,
        help_behavior_hint=f"(default: {default})" if default else None,
    )
    marks = [tyro.conf.Positional] if extra.get("positional") else []
    if kind is bool:
        marks.append(tyro.conf.FlagCreatePairsOff)
    if extra.get("repeats"):
        marks.append(tyro.conf.UseAppendAction)
    annotated: Any = Annotated[kind, argument]
    for mark in marks:
        annotated = mark[annotated]
    return annotated


def _flag(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return f"--{extra.get('flag', name)}".replace("_", "-")


def _bounds(field: FieldInfo | None) -> str:
    if field is None:
        return "see --help"
    limits = {
        name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
    }
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    told = " and ".join(f"{words[name]} {limit}" for name, limit in limits.items())
    return f"it takes a number {told}" if told else (field.description or "see --help")


def _model_at(kind: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    """Returns the settings class that holds the key at a location, through optional and mapping types."""
    current: Any = kind
    for key in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(key)
            current = field.annotation if field else None
        else:
            current = get_args(current)[-1] if get_args(current) else None
        models = [arg for arg in get_args(current) if isinstance(arg, type) and issubclass(arg, BaseModel)]
        if models and not isinstance(current, type) and len(get_args(current)) != 2:
            current = models[0]
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _module_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).stem


def _first_sentence(box: str) -> str:
    """Returns tyro's message without its frame: the lines before the first rule, as one."""
    inside = box[box.find("╭") :].splitlines()[1:]
    lines = [line.strip("│╭╮╰╯─ \n") for line in inside]
    told = " ".join(line for line in lines[: lines.index("")] if line) if "" in lines else " ".join(lines)
    return re.sub(r"^Error parsing (--\S+|\S+): ", r"\1: ", told) or "wrong use"
