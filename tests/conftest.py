"""What tests share: a mirror of real texts where there is one, and one run on the starter corpus."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_module(module: str, *args: object, cwd: Path = ROOT, **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m module args` as a person would, without a mirror in the environment unless given."""
    clean = {key: value for key, value in os.environ.items() if key != "GRADED_MIRROR"}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, args)],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Returns a folder of upstream texts, or skips: users do not have it."""
    folder = Path(os.environ.get("GRADED_MIRROR") or ROOT.parent / "shared" / "data")
    if not (folder / "labelled" / "graded_readers").is_dir():
        pytest.skip("no mirror of upstream texts: set GRADED_MIRROR")
    return folder


class Mix:
    """A folder with a mix in it, and the commands on it."""

    trained: ClassVar[list[Path]] = []  # the classifiers of the first run: training them is tested in test_grading

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.manifests = folder / "data_manifests"

    def run(self, *args: object) -> "subprocess.CompletedProcess[str]":
        models = self.data / "models"
        if self.trained and not self.data.exists() and "--pipelines" not in args:
            shutil.copytree(self.trained[0], models)
        done = run_module("curation.run", "--data-dir", self.data, "--manifest-dir", self.manifests, *args)
        if done.returncode == 0 and not self.trained:
            self.trained.append(models)
        return done

    def manifest(self, name: str = "mix70") -> Path:
        return self.manifests / f"{name}.json"


@pytest.fixture(scope="session")
def starter_mix(tmp_path_factory: pytest.TempPathFactory) -> Mix:
    """Returns a mix70 of the starter corpus; tests may add others beside it, and read it."""
    mix = Mix(tmp_path_factory.mktemp("starter"))
    done = mix.run("--grade-ratio", 0.7)
    assert done.returncode == 0, done.stderr
    return mix
