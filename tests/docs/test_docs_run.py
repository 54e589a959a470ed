"""What the documentation shows works: its examples in Python, those in docstrings, and the commands with their options."""

import doctest
import importlib
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

import fraudstream

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8") for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
}
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
PROGRAMS = {
    "fraudstream": "fraudstream.cli",
    "fraudstream-simulate": "fraudstream_producers.simulate",
    "fraudstream-replay": "fraudstream_producers.replay",
}
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(fraudstream.__path__, "fraudstream.")
    if not info.ispkg
    and ">>>" in (Path(fraudstream.__path__[0]).parent / (info.name.replace(".", "/") + ".py")).read_text("utf-8")
)


@pytest.mark.parametrize("page", sorted(page for page, text in PAGES.items() if PYTHON.search(text)))
def test_the_examples_in_python_run(page: str) -> None:
    """Every Python block of a page runs as it stands, its assertions included."""
    for block in PYTHON.findall(PAGES[page]):
        exec(compile(block, page, "exec"), {"__name__": page})


def test_the_readme_has_an_example() -> None:
    """It is the first code that a reader sees."""
    assert PYTHON.search(PAGES["README.md"])


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    """The examples of a module's docstrings give what they say."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def unknown_options(text: str, programs: Mapping[str, Any]) -> list[str]:
    """Find options that a text gives to a command which has none of that name."""
    findings = []
    # Up to what ends a command in a shell, in prose or in a table.
    for name, rest in re.findall(r"(?<![\w./-])(fraudstream[a-z-]*)((?: +[^\s`#|;&)]+)+)", text.replace("\\\n", " ")):
        command, words = programs.get(name), rest.split()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if command is None or hasattr(command, "commands"):
            continue
        known = {"--help"} | {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        given = [found.group() for word in words if (found := re.match(r"--?[a-z][\w-]*", word))]
        findings += [f"{name} {command.name}: {option}" for option in given if option not in known]
    return findings


def programs() -> dict[str, Any]:
    return {name: typer.main.get_command(importlib.import_module(module).app) for name, module in PROGRAMS.items()}


def test_an_unknown_option_is_found() -> None:
    """In a shell's block over two lines and in prose; what follows a comment or another command is not the command's."""
    page = (
        "    fraudstream topics create --partitions 8 \\\n        --wrong 1\nor `fraudstream worker --chekc` # --no\n"
    )
    assert unknown_options(page, programs()) == ["fraudstream create: --wrong", "fraudstream worker: --chekc"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_are_shown_with_options_they_have(page: str) -> None:
    """Whatever a page gives to a command is an option of it."""
    assert unknown_options(PAGES[page], programs()) == []
