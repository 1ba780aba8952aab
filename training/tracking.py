"""Where the figures of a run go: metrics.jsonl in its folder, and Weights & Biases on request.

W&B gets a process of its own (this module as a program), which follows metrics.jsonl as it grows. So nothing that W&B
does, not a call that hangs, a crash or a hook at exit, can stop or delay the training. Its files stay in the run folder
too: wandb/, with all that it has to say in wandb/messages.log.
"""

import json
import math
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, TextIO

from shared.console import say
from shared.files import write_text
from training.settings import TrainingSettings

if TYPE_CHECKING:
    from wandb import Artifact, Run

WandbMode = Literal["off", "offline", "online"]
PROJECT = "graded-corpus"
METRICS = "metrics.jsonl"
MODEL_FILES = ("model.safetensors", "state.json")  # what W&B gets of a checkpoint
LOGIN_SECONDS, START_SECONDS, UPLOAD_SECONDS = 5, 10, 600  # after which W&B's process gives up
FINISH_SECONDS, LEAVE_SECONDS = 15, 5  # what a run that is done waits for W&B's process, and one that was stopped


class Tracker:
    """The figures of a run; in processes of another rank than 0 it does nothing.

    `facts` are what W&B shows beside the settings, such as the hash of the manifest.
    """

    def __init__(
        self,
        folder: Path,
        mode: WandbMode,
        settings: TrainingSettings,
        manifest: Path,
        facts: Mapping[str, Any],
        rank: int = 0,
    ) -> None:
        self._folder = folder
        self._metrics, self._wandb = None, None
        self._ending: dict[str, Any] = {"exit_code": 0}
        self._patience = FINISH_SECONDS
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self._metrics = (folder / METRICS).open("a", encoding="utf-8")
            beginning = {
                "mode": mode,
                "folder": str(folder.resolve()),
                "metrics_from": self._metrics.tell(),
                "manifest": str(manifest.resolve()),
                "tags": [settings.preset, *(switch for switch, value in settings.model if value is True)],
                "config": {**settings.model_dump(mode="json"), **facts},
            }
            self._wandb = _start_wandb(folder / "wandb", beginning) if mode != "off" else None

    def log(self, figures: Mapping[str, float | str | None]) -> None:
        """Writes one line of metrics.jsonl: floats to the last digit, null for what is not finite."""
        if self._metrics:
            self._metrics.write(json.dumps({name: _finite(value) for name, value in figures.items()}) + "\n")
            self._metrics.flush()

    def sync(self) -> None:
        """Returns once all lines are on disk, so that a power cut takes none that a checkpoint counts on."""
        if self._metrics:
            os.fsync(self._metrics.fileno())

    def stop(self) -> None:
        """Says that the run was stopped: W&B gets less time then, and is told so."""
        self._ending, self._patience = {"exit_code": 1}, LEAVE_SECONDS

    def log_model(self, checkpoint: Path) -> None:
        """Says which checkpoint is the outcome of the run."""
        self._ending["model"] = str(checkpoint.resolve())

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._metrics:
            self._metrics.close()
        if self._wandb and self._wandb.poll() is None:  # otherwise it has told why it ended
            if kind is not None:
                self.stop()
            left = "it did not finish"
            try:
                self._wandb.communicate(json.dumps(self._ending), timeout=self._patience)
            except subprocess.TimeoutExpired:
                left = f"process {self._wandb.pid} goes on for {UPLOAD_SECONDS // 60} minutes at most"
            if self._wandb.returncode != 0:
                say(f"W&B: {left}; to upload what is missing: wandb sync {self._folder}/wandb/*run-*")


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _start_wandb(files: Path, beginning: Mapping[str, Any]) -> "subprocess.Popen[str] | None":
    """Returns W&B's process, out of Ctrl-C's reach: what we tell in it goes to stderr, what W&B tells to a file."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "WANDB_MODE"},
        **dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(files.resolve())),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_HTTP_TIMEOUT": str(LOGIN_SECONDS),
    }
    program = [sys.executable, "-m", "training.tracking"]
    try:
        files.mkdir(exist_ok=True)
        with (files / "messages.log").open("a") as log:
            process = subprocess.Popen(
                program, env=environment, stdin=subprocess.PIPE, stdout=2, stderr=log, start_new_session=True, text=True
            )
        assert process.stdin
        process.stdin.write(json.dumps(beginning) + "\n")
        process.stdin.flush()
        return process
    except OSError as error:
        say(f"warning: W&B cannot be started ({error}); {METRICS} has all figures")
        return None


def main() -> None:
    """W&B's process. What goes wrong in it is told once, and is the end of it."""
    console = os.fdopen(os.dup(1), "w")  # not W&B's: what may outlast the training must not hold its stderr
    os.dup2(2, 1)
    try:
        _follow(json.loads(sys.stdin.readline()), console)
    except Exception as error:
        traceback.print_exc()
        _tell(console, f"warning: tracking with W&B ends ({_first_line(error)}); {METRICS} goes on")
        os._exit(1)  # W&B's own hooks may hang


def _follow(beginning: Mapping[str, Any], console: TextIO) -> None:
    """Sends each line that metrics.jsonl grows by, until the training process closes its end or is gone."""
    signal.signal(signal.SIGALRM, _give_up)
    run = _online_run(beginning, console) if beginning["mode"] == "online" else None
    signal.alarm(UPLOAD_SECONDS)
    run = run or _new_run(beginning, "offline")
    run.define_metric("*", step_metric="step")
    with Path(beginning["folder"], METRICS).open("rb") as metrics:
        metrics.seek(beginning["metrics_from"])
        training = True
        while training:
            training = not select.select([sys.stdin], [], [], 1.0)[0]
            signal.alarm(UPLOAD_SECONDS)
            while (line := metrics.readline()).endswith(b"\n"):
                run.log({name: value for name, value in json.loads(line).items() if value is not None})
            metrics.seek(-len(line), os.SEEK_CUR)  # back before a line that is being written
    ending = json.loads(sys.stdin.read() or '{"exit_code": 1}')
    if run.offline:
        _tell(console, f"W&B: to upload this run: wandb sync {Path(run.dir).parent}")
    console.close()
    try:
        manifest = _artifact(Path(beginning["manifest"]).stem, "dataset", Path(beginning["manifest"]))
        run.log_artifact(manifest) if run.offline else run.use_artifact(manifest)  # offline there are no inputs
        if "model" in ending:
            weights = [Path(ending["model"], name) for name in MODEL_FILES]
            run.log_artifact(_artifact(f"model-{run.name}", "model", *weights))
    finally:
        run.finish(ending["exit_code"])


def _online_run(beginning: Mapping[str, Any], console: TextIO) -> "Run | None":
    """Returns a run on the W&B server, or None after a warning: no key, a wrong one, or nobody answers."""
    import wandb

    signal.alarm(START_SECONDS)
    try:
        if not wandb.login(prompt=False, verify=True):
            raise PermissionError("no API key: wandb login, or WANDB_API_KEY")
        run = _new_run(beginning, "online")
    except Exception as error:
        traceback.print_exc()
        _tell(console, f"warning: W&B cannot be used online ({_first_line(error)}); this run is tracked offline")
        return None
    _tell(console, f"W&B: {run.url}")
    return run


def _new_run(beginning: Mapping[str, Any], mode: Literal["offline", "online"]) -> "Run":
    import wandb

    folder = Path(beginning["folder"])
    suffix = folder / "wandb" / "run-id"  # a resumed run goes on in W&B; a new one of the same name does not
    if not suffix.exists():
        write_text(suffix, secrets.token_hex(4))
    return wandb.init(
        project=PROJECT,
        group=Path(beginning["manifest"]).stem,
        name=folder.name,
        id=f"{_plain(folder.name)}-{suffix.read_text()}",
        resume="allow" if mode == "online" else None,
        job_type="pretrain",
        tags=beginning["tags"],
        config=beginning["config"],
        mode=mode,
        dir=folder,
        settings=wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=LOGIN_SECONDS,
        ),
    )


def _artifact(name: str, kind: str, *files: Path) -> "Artifact":
    import wandb

    artifact = wandb.Artifact(_plain(name), type=kind)
    for file in files:
        artifact.add_file(str(file), policy="immutable", skip_cache=True)  # without a copy
    return artifact


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:100]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _tell(console: TextIO, line: str) -> None:
    with suppress(OSError, ValueError):  # the training process may have left, or been told all it waits for
        print(line, file=console, flush=True)


def _give_up(*_: object) -> Never:
    raise TimeoutError("it does not answer")


if __name__ == "__main__":
    main()
