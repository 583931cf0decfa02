"""The rooms and import rules of docs/architecture.md, read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("grpo_core", "pages", "storage", "tests")
OURS = {*ROOMS, "app"}

UPSTREAM: dict[str, set[str]] = {
    "errors": set(),
    "beside": set(),
    "method_row": set(),
    "own_methods": set(),
    "rules": {"method_row"},
    "off_policy": {"method_row"},
    "methods": {"method_row", "own_methods", "off_policy"},
    "records": set(),
    "measures": set(),
    "streams": set(),
    "config": {"errors", "method_row", "rules", "methods"},
    "notes": {"rules", "config"},
    "equation_pieces": set(),
    "equations": {"method_row", "equation_pieces"},
    "trained": set(),
    "methods_page": {"method_row", "rules", "methods", "equation_pieces", "equations", "study", "trained"},
    "presets": {"errors", "methods", "config"},
    "algorithms": set(),
    "objectives": {"method_row", "config", "streams", "algorithms"},
    "tasks": {"errors", "methods", "config", "records", "measures", "streams"},
    "rollout": {"errors", "methods", "config", "records", "tasks", "algorithms"},
    "trainer": {"errors", "method_row", "config", "records", "measures", "streams", "tasks", "algorithms", "objectives", "rollout"},
    "lab": {"errors", "beside", "method_row", "config", "records", "measures", "tasks", "algorithms", "objectives"},
    "trace": {"errors", "beside", "methods", "config", "records", "measures"},
    "diagnosis": {"errors", "method_row", "methods", "config", "records", "measures"},
    "study": {"config", "methods", "diagnosis", "launch"},
    "launch": {"errors", "beside", "methods", "config", "presets"},
    "watch": {"errors", "beside", "config", "launch", "diagnosis"},
    "adapters": {"errors", "methods", "config", "records", "trace"},
    "demo": {"errors", "beside", "methods", "config", "presets", "launch"},
}
"""What each part of grpo_core may import from the rest of it, itself aside; running, cli and its commands wire everything and may import all."""
MAY_USE_STORAGE = {"trace", "launch", "watch", "demo", "adapters", "cli"}
PAGES_MAY_IMPORT = {
    "launch", "config", "method_row", "methods", "rules", "equation_pieces", "equations", "trained", "presets", "errors", "records", "measures",
    "diagnosis", "lab", "study",
}  # fmt: skip
TORCH_FREE = (
    "config", "notes", "records", "method_row", "own_methods", "rules", "off_policy", "methods", "equation_pieces", "equations", "trained", "errors", "beside",
    "presets", "demo", "cli", "commands", "running", "launch", "watch", "measures", "streams", "diagnosis", "study", "lab/batch", "lab/figures",
    "lab/shaped", "lab/process",
)  # fmt: skip


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def product() -> list[Path]:
    return [ROOT / "app.py", *sources("grpo_core", "pages", "storage")]


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, also inside functions: `from a.b import c` gives a.b.c."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(paths: list[Path], forbidden) -> list[str]:
    return [f"{path.relative_to(ROOT)} imports {name}" for path in paths for name in imports(path) if forbidden(name)]


def top(name: str) -> str:
    return name.split(".")[0]


def part(name: str) -> str:
    """The part of grpo_core a dotted name or a path below it belongs to."""
    return Path(name.replace(".", "/")).parts[1] if "." in name else name


def is_page(path: Path) -> bool:
    """A page is a script directly in pages/; pages/frame.py sets them up and may be imported."""
    return path.parent == ROOT / "pages" and path.name not in ("__init__.py", "frame.py")


def test_code_lies_only_in_its_rooms() -> None:
    at_top = {path.name for path in ROOT.glob("*.py")}
    assert at_top == {"app.py"}
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".") and any(path.rglob("*.py"))}
    assert rooms <= {*ROOMS, "docs", "groupscope-data", "build"}
    assert not list((ROOT / "docs").rglob("*.py"))


def test_storage_imports_nothing_of_ours() -> None:
    assert not breaches(sources("storage"), lambda name: top(name) in OURS - {"storage"})


def test_only_storage_talks_sql() -> None:
    assert not breaches([*sources("grpo_core", "pages"), ROOT / "app.py"], lambda name: top(name) in ("duckdb", "sqlalchemy", "sqlite3"))


def test_streamlit_only_in_the_window() -> None:
    assert not breaches(sources("grpo_core", "storage"), lambda name: top(name) == "streamlit")


def test_algorithms_import_torch_and_themselves_only() -> None:
    standard = sys.stdlib_module_names
    foreign = breaches(sources("grpo_core/algorithms"), lambda n: top(n) not in standard and top(n) != "torch" and not n.startswith("grpo_core.algorithms"))
    assert not foreign


@pytest.mark.parametrize("path", sources("grpo_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_machine_imports_only_from_upstream(path: Path) -> None:
    inside = path.relative_to(ROOT / "grpo_core").with_suffix("").parts[0]
    if inside in ("cli", "commands", "running", "__main__", "__init__"):
        return
    assert inside in UPSTREAM, f"grpo_core/{inside} is not on the map: add it to architecture.md and to UPSTREAM"
    allowed = UPSTREAM[inside] | {inside}
    names = [name for name in imports(path) if top(name) in OURS]
    assert not [name for name in names if top(name) == "grpo_core" and part(name) not in allowed]
    assert not [name for name in names if top(name) in ("pages", "app", "tests")]
    if inside not in MAY_USE_STORAGE:
        assert not [name for name in names if top(name) == "storage"]


def test_trainer_and_trace_do_not_see_each_other() -> None:
    assert not breaches(sources("grpo_core/trainer"), lambda name: name.startswith(("grpo_core.trace", "storage")))
    assert not breaches(sources("grpo_core/trace"), lambda name: name.startswith("grpo_core.trainer"))


def test_pages_stay_on_their_side() -> None:
    def forbidden(name: str) -> bool:
        machine = top(name) == "grpo_core" and part(name) not in PAGES_MAY_IMPORT
        return machine or top(name) in ("torch", "transformers", "duckdb", "sqlalchemy", "tests")

    assert not breaches([ROOT / "app.py", *sources("pages")], forbidden)


def test_pages_do_not_import_each_other() -> None:
    scripts = {f"pages.{path.stem}" for path in sources("pages") if is_page(path)}
    assert not breaches([ROOT / "app.py", *sources("pages")], lambda name: name in scripts or name.rpartition(".")[0] in scripts)
    assert not breaches(sources("pages/components"), lambda name: name.startswith("pages.frame"))


def test_package_inits_import_nothing() -> None:
    inits = [path for path in product() if path.name == "__init__.py"]
    assert not breaches(inits, lambda name: not name.startswith("__future__"))


PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if heavy := {"torch", "transformers", "streamlit"} & {module.split(".")[0] for module in sys.modules}:
        sys.exit(f"importing {name} loads {heavy}")
"""


def test_what_the_dashboard_loads_never_loads_torch() -> None:
    """Run for real, since a torch-free module may import one that is not."""
    modules = [name for room in ("storage", *(f"grpo_core/{part}" for part in TORCH_FREE)) for name in modules_under(room)]
    assert len(modules) > 15
    ended = subprocess.run([sys.executable, "-c", PROBE, *modules], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def modules_under(where: str) -> list[str]:
    paths = [ROOT / f"{where}.py"] if (ROOT / f"{where}.py").exists() else sources(where)
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def test_nothing_dangerous_is_called() -> None:
    found = []
    for path in [*product(), *sources("tests")]:
        for node in ast.walk(tree_of(path)):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword) and node.arg in ("unsafe_allow_html", "unsafe_allow_javascript", "shell"):
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    found.append(f"{where} {node.arg}")
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("st.iframe", "os.system", "os.popen", "components.v1.html", "components.v1.iframe"):
                found.append(f"{where} {ast.unparse(node)}")
    assert not found


def test_the_step_reads_at_a_glance() -> None:
    path = ROOT / "grpo_core/trainer/step.py"
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    assert functions
    assert not [f"{f.name} has {f.end_lineno - f.lineno + 1} lines" for f in functions if f.end_lineno - f.lineno + 1 > 60]


def pins(file: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    matches = [(line, re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z]+\])?==([0-9][A-Za-z0-9.]*)", line)) for line in lines if line]
    assert not [line for line, match in matches if match is None], f"{file} pins everything exactly"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for _, match in matches}


def third_party(paths: list[Path]) -> set[str]:
    """Distributions behind the imports of some files."""
    names = {top(name) for path in paths for name in imports(path)} - OURS - sys.stdlib_module_names
    owners = packages_distributions()
    return {re.sub(r"[-_.]+", "-", owners.get(name, [name])[0]).lower() for name in names}


RUN_ELSEWHERE = ROOT / "storage" / "ducklake_script.py"
"""By an interpreter that has what it imports."""


def test_requirements_are_what_is_imported() -> None:
    wanted, used = set(pins("requirements.txt")), third_party([path for path in product() if path != RUN_ELSEWHERE])
    assert used - wanted == set(), "imported but not required"
    assert wanted - used == set(), "required but not imported"


RUN_BY_PYTEST = {"pytest-xdist", "pytest-timeout", "pytest-rerunfailures"}
NEEDED_BY_TRL = {"accelerate"}
LOADED_BY_NAME = {"s3fs", "moto"}
"""s3fs by fsspec, for s3:// URLs; moto as a program."""


def test_test_requirements_are_what_tests_import() -> None:
    wanted, used = set(pins("requirements-test.txt")), third_party(sources("tests"))
    assert used - wanted - set(pins("requirements.txt")) == set(), "imported by tests but not required"
    assert wanted - used - RUN_BY_PYTEST - NEEDED_BY_TRL - LOADED_BY_NAME == set(), "required but not imported by tests"
