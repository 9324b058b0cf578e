"""Dependencies point one way, and what should be light is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "archivecolor"

# For each part of the package, the other parts and the libraries that it must not import.
FORBIDDEN = {
    "errors": {"archivecolor.", "torch", "av", "cv2", "click", "rich", "numpy"},
    "config": {"torch", "av", "cv2", "click", "rich", "numpy"},
    "color": {"av", "cv2", "click", "rich", "archivecolor."},
    "networks": {"av", "cv2", "click", "rich", "archivecolor.film", "archivecolor.weights", "archivecolor.training"},
    "weights": {"av", "cv2", "click", "rich", "archivecolor.film", "archivecolor.colorize", "archivecolor.training"},
    "film": {"torch", "click", "rich", "archivecolor.networks", "archivecolor.colorize", "archivecolor.weights"},
    "colorize": {"av", "click", "rich", "archivecolor.training"},
    "training": {"av", "click", "rich", "archivecolor.film", "archivecolor.colorize"},
    "evaluation": {"av", "click", "rich"},
    "training/losses": {"av", "cv2", "click", "rich"},
    "evaluation/metrics": {"av", "cv2", "click", "rich"},
}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of(part: str) -> list[Path]:
    single = PACKAGE / f"{part}.py"
    return [single] if single.exists() else sorted((PACKAGE / part).rglob("*.py"))


def belongs_to(name: str, forbidden: str) -> bool:
    if forbidden.endswith("."):
        return name.startswith(forbidden)
    return name == forbidden or name.startswith(forbidden + ".")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_dependencies_point_one_way(part: str) -> None:
    modules = modules_of(part)
    assert modules
    for path in modules:
        found = {
            f"{name} (by {path.name})"
            for name in imports_of(path)
            if not belongs_to(name, "archivecolor.errors") and not belongs_to(name, "archivecolor.matrices")
            for forbidden in FORBIDDEN[part] | {"archivecolor.cli"}
            if belongs_to(name, forbidden)
        }
        assert not found


def test_only_film_imports_av() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "film":
            assert not any(belongs_to(name, "av") for name in imports_of(path)), path


def test_the_library_never_prints() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(func, ast.Name) and func.id == "print" for func in calls), path


HEAVY = {"torch", "torchvision", "av", "cv2", "numpy", "matplotlib", "safetensors"}


@pytest.mark.parametrize("arguments", [[], ["colorize"], ["inspect"], ["verify"], ["train"], ["export"], ["evaluate"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from archivecolor.cli import main\n"
        f"try: main([*{arguments!r}, '--help'])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, archivecolor; heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help_and_documentation() -> None:
    from archivecolor.cli import main

    readme = (PACKAGE.parent / "README.md").read_text()
    for name, command in main.commands.items():
        assert command.help, name
        assert f"archivecolor {name}" in readme, f"the README does not show `archivecolor {name}`"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts[0]} has no help"
