"""What the README says works as it stands: its commands, its recipes, its flags, its map of files."""

import ast
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from curation.inspection import COMPOSITION_SQL, open_mix, query
from tests.conftest import ROOT, Mix, run_module

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line.startswith("python -m")]
RECIPES = [
    query
    for kind, block in BLOCKS
    if kind == "sql"
    for query in re.split(r"^-- \d+\..*$", block, flags=re.MULTILINE)
    if query.strip()
]
MODULES = [
    "curation.run",
    "curation.composition",
    "curation.peek",
    "curation.verify",
    "curation.why",
    "curation.grade",
    "curation.train_grade_classifier",
    "training.pretrain",
    "training.train_tokenizer",
    "training.evaluate",
    "training.generate",
]


@pytest.fixture(scope="module")
def checkout(starter_mix: Mix) -> Path:
    """Returns a folder like a fresh checkout's, with a mix70 made by the first command."""
    shutil.copy(ROOT / "README.md", starter_mix.folder)
    return starter_mix.folder


def works(command: str, checkout: Path) -> None:
    _, _, module, *args = shlex.split(command)
    done = run_module(module, *args, cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or "--dry-run" in args


@pytest.mark.parametrize("command", [c for c in COMMANDS if "-m curation" in c and "--profile full" not in c])
def test_commands_work_as_they_stand(command: str, checkout: Path) -> None:
    works(command, checkout)


def test_training_commands_work_in_their_order(checkout: Path) -> None:
    for command in COMMANDS:
        if "-m training" in command:
            works(command, checkout)


@pytest.mark.slow
@pytest.mark.mirror
@pytest.mark.parametrize("command", [c for c in COMMANDS if "--profile full" in c])
def test_commands_on_the_full_profile(command: str, tmp_path: Path, mirror: Path) -> None:
    _, _, module, *args = shlex.split(command)
    done = run_module(module, *args, cwd=tmp_path, GRADED_MIRROR=str(mirror))
    assert done.returncode == 0, done.stderr


def test_the_shortage_is_told_as_the_readme_shows(checkout: Path) -> None:
    block = next(block for _, block in BLOCKS if block.startswith("$ "))
    command, error, hint = block.splitlines()
    _, _, module, *args = shlex.split(command.removeprefix("$ "))
    done = run_module(module, *args, cwd=checkout)
    for line in (error, hint):  # but for the figures: another processor may train another classifier
        pattern = re.sub(r"\d[\d.]*k?", r"\\d[\\d.]*k?", re.escape(line).replace("\\.", "."))
        assert re.search(pattern, done.stderr), done.stderr


def test_there_are_five_recipes() -> None:
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_answer(recipe: str, starter_mix: Mix) -> None:
    names, rows = query(open_mix(starter_mix.manifest()), recipe)
    assert names
    assert rows
    done = run_module("curation.composition", starter_mix.manifest(), "--sql", recipe, "--json")
    assert done.returncode == 0, done.stderr


def test_composition_sql_works_in_any_client(starter_mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(starter_mix.folder)
    database = duckdb.connect()
    database.execute("SET VARIABLE manifest = 'data_manifests/mix70.json'")
    database.execute(COMPOSITION_SQL.read_text())
    assert database.execute("FROM grade_ratio()").fetchall()[0][0] == pytest.approx(0.7, abs=1e-4)


def test_shares_add_up(starter_mix: Mix) -> None:
    database = open_mix(starter_mix.manifest())
    for column in ("source", "license", "grade", "genre", "subject", "part"):
        _, rows = query(database, f"FROM share_by('{column}')")
        assert sum(float(str(row[-1])) for row in rows) == pytest.approx(1)


def test_every_command_is_documented() -> None:
    commands = {
        f"{package}.{path.stem}"
        for package in ("curation", "training")
        for path in (ROOT / package).glob("*.py")
        if "run_command(main" in path.read_text()
    }
    assert commands == {*MODULES, "curation.build_syllables"}
    assert [c for c in MODULES if f"python -m {c}" not in README] == []


@pytest.mark.parametrize("module", MODULES)
def test_help_is_instant_and_shows_an_example(module: str) -> None:
    times = []  # of the processor: on a busy machine the clock tells of others
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run_module(module, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert f"Example: python -m {module}" in done.stdout
    assert min(times) < 0.5


def test_every_flag_in_the_readme_exists() -> None:
    helps = " ".join(run_module(module, "--help").stdout for module in MODULES)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"`torchrun[^`]*`", "", README)))
    assert sorted(flag for flag in flags if flag not in helps) == []


def test_the_map_names_files_that_are_there() -> None:
    block = next(block for _, block in BLOCKS if block.startswith("curation/run.py"))
    for line in block.splitlines():
        folder = line.partition("/")[0]
        for name in re.findall(r"\b(?:[a-z_]+/)*[a-z_]+\.(?:py|sql|yaml|txt\.gz)", line):
            path = ROOT / name if "/" in name or (ROOT / name).exists() else ROOT / folder / name
            assert path.exists(), name


@pytest.mark.parametrize("package", ["curation", "training"])
def test_the_map_names_every_module(package: str) -> None:
    block = next(block for _, block in BLOCKS if block.startswith("curation/run.py"))
    assert [p.name for p in (ROOT / package).glob("*.py") if p.name not in f"{block} __init__.py"] == []


def test_every_module_says_what_it_is() -> None:
    for package in ("curation", "shared", "training"):
        for path in (ROOT / package).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_curation_imports_no_torch() -> None:
    names = [path.stem for path in (ROOT / "curation").glob("*.py") if path.stem != "__init__"]
    imports = "; ".join(
        ["import sys", *(f"import curation.{name}" for name in names), "sys.exit('torch' in sys.modules)"]
    )
    assert subprocess.run([sys.executable, "-c", imports], cwd=ROOT).returncode == 0


def test_no_module_is_named_like_the_standard_library() -> None:
    names = {p.stem for package in ("curation", "shared", "training") for p in (ROOT / package).rglob("*.py")}
    assert names & set(sys.stdlib_module_names) == set()
