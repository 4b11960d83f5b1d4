"""What README promises of Python, of machines without make, and of a wheel, held against what decides it."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
from pathlib import Path

import pytest

from effort_finetune.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "plugin" / "effort_finetune"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_readme_and_pip_ask_for_the_same_python(metadata: configparser.ConfigParser) -> None:
    (said,) = re.findall(r"Needs Python (3\.\d+) or later", README)
    assert metadata["options"]["python_requires"] == f">={said}"
    named = re.findall(r"Python :: (3\.\d+)", metadata["metadata"]["classifiers"])
    assert min(named, key=lambda version: int(version[2:])) == said


def test_the_way_without_make_does_what_make_does() -> None:
    (block,) = re.findall(r"Without make.*?```\n(.*?)```", README, re.DOTALL)
    lines = [re.split(r"\s+#", line)[0].split() for line in block.splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = [line.split() for line in re.findall(r"^\t\$\(BIN\)/(.*)$", makefile, re.MULTILINE)]
    plain = [
        [word for word in line if word not in ("--quiet", "--disable-pip-version-check")] for line in recipe
    ]
    venv, torch, package, demo = lines
    assert venv == ["python", "-m", "venv", ".venv"]
    assert torch == plain[0], "torch first and alone, under the constraints"
    assert package[:-1] == plain[1][:-1]
    extras = [set(re.findall(r"\[(.*)\]", line[-1])[0].split(",")) for line in (package, plain[1])]
    assert extras[0] <= extras[1]
    assert demo == plain[2]
    assert importlib.util.find_spec(demo[-1]) is not None


def test_help_lists_no_command_that_a_wheel_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = set(re.findall(r"^ {2,4}([a-z][a-z-]+) ", capsys.readouterr().out, re.MULTILINE))
    assert listed >= set(COMMANDS)
    assert "demo" not in listed
    outside = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"plugin"}
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            beside = {name.partition(".")[0] for name in names} & outside
            assert not beside, f"{module.relative_to(ROOT)} imports what no wheel holds"


def test_a_wheel_holds_all_files_that_the_package_reads(metadata: configparser.ConfigParser) -> None:
    patterns = metadata["options.package_data"]["effort_finetune"].split()
    taken = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    others = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert others <= taken
    assert others, "templates, schemas and the page"
    assert all((folder / "__init__.py").is_file() for folder in {p.parent for p in PACKAGE.rglob("*.py")})
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (bundled,) = (
        ast.literal_eval(node.value)
        for node in setup.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BUNDLED"
    )
    assert [pattern for pattern in bundled if not list(ROOT.glob(pattern))] == []
