"""The house rules that no linter knows, over the whole repository.

A check is a function from texts or trees to findings, one line each; it is tried on a small wrong example first, so that
a check which can no longer fail is seen, and then on the repository, where it must find nothing.
"""

import ast
import functools
import importlib
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grimp
import pytest
import typer

ROOT = Path(__file__).parents[2]

# A file is read in one sitting, a function on one screen. Docstring and signature are not counted as function: they
# are what one reads instead of it.
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
README_LINES_MAX = 120
README_FIRST_COMMAND_LINE_MAX = 20

# "path" or "path::function" -> why this one may be longer. An entry that is no longer needed is a finding too.
LONGER_FOR_A_REASON: Mapping[str, str] = {}

# Modules that nothing in the package imports, and who does.
USED_FROM_OUTSIDE: Mapping[str, str] = {
    "fraudstream.testing": "the public test driver: users' tests and ours",
}


# --- what is looked at -------------------------------------------------------------------------------------------------


@functools.cache
def python_files(*folders: str) -> Mapping[str, ast.Module]:
    """Parse every Python file under these folders of the repository; keys are paths from its root."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert paths, f"no Python in {folders}: what is checked has moved"
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths}


def markdown_files() -> dict[str, str]:
    """Read the repository's pages: those at its root and those in docs."""
    paths = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def tracked_text_files() -> dict[str, str]:
    """Read every file that git tracks and that is text."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git work tree: no list of tracked files")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    texts: dict[str, str] = {}
    for name in filter(None, listing.split("\0")):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        if b"\0" not in data:
            texts[name] = data.decode("utf-8", errors="replace")
    return texts


# --- sizes -------------------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines from the first statement after the docstring to the end."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not statements:
        return 0
    return (function.end_lineno or 0) - statements[0].lineno + 1


def oversized(trees: Mapping[str, ast.Module], lines: Mapping[str, int], allowed: Mapping[str, str]) -> list[str]:
    """Find files and functions above their limits, and allowances that nothing needs any more."""
    sizes = {path: (count, FILE_LINES_MAX) for path, count in lines.items()}
    for path, tree in trees.items():
        for function in functions(tree):
            sizes[f"{path}::{function.name}"] = (body_lines(function), FUNCTION_LINES_MAX)
    over = {name for name, (count, limit) in sizes.items() if count > limit}
    findings = [f"{name}: {sizes[name][0]} lines, limit {sizes[name][1]}" for name in sorted(over - allowed.keys())]
    return findings + [f"{name}: allowed to be longer, but is not" for name in sorted(allowed.keys() - over)]


def test_long_function_and_stale_allowance_are_found() -> None:
    """A function of 61 lines is a finding, its docstring is not counted, and an unused allowance is one as well."""
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES_MAX))
    docstring = '    """' + "\n" * 30 + '    """'
    trees = {"a.py": ast.parse(f"def fits():\n{docstring}\n{body}\ndef long():\n{body}\n    x = 2\n")}
    assert oversized(trees, {"a.py": 400}, {}) == ["a.py::long: 61 lines, limit 60"]
    assert oversized(trees, {"a.py": 401}, {"a.py::long": "why", "b.py": "why"}) == [
        "a.py: 401 lines, limit 400",
        "b.py: allowed to be longer, but is not",
    ]


def test_files_and_functions_are_small() -> None:
    """Files stay within 400 lines and functions within 60, or say here why they cannot."""
    trees = python_files("src", "producers")
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in trees}
    assert oversized(trees, lines, LONGER_FOR_A_REASON) == []


# --- tests -------------------------------------------------------------------------------------------------------------


def undocumented_tests(trees: Mapping[str, ast.Module]) -> list[str]:
    """Find test functions that do not state the behaviour they hold."""
    return [
        f"{path}::{function.name}: no docstring"
        for path, tree in trees.items()
        for function in functions(tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]


def mocks(trees: Mapping[str, ast.Module]) -> list[str]:
    """Find mock libraries at their door: an import of one, or the fixture of pytest-mock."""
    findings = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.arg) and node.arg == "mocker":
                imported = ["mock"]
            findings += [f"{path}: imports {name}" for name in imported if "mock" in name.split(".")]
    return findings


def test_undocumented_test_and_mock_are_found() -> None:
    """A test without a docstring, each way to import a mock, and the mocker fixture are findings."""
    source = "import unittest.mock\nfrom unittest import mock\nfrom mock import patch\ndef test_it(mocker): pass\n"
    trees = {"t.py": ast.parse(source)}
    assert undocumented_tests(trees) == ["t.py::test_it: no docstring"]
    assert len(mocks(trees)) == 4
    assert mocks({"t.py": ast.parse("def test_it(monkeypatch): pass")}) == []


def test_every_test_states_its_behaviour() -> None:
    """Each test has a docstring."""
    assert undocumented_tests(python_files("tests")) == []


def test_no_test_mocks() -> None:
    """Tests use fakes with a behaviour of their own, never recorded calls."""
    assert mocks(python_files("tests")) == []


# --- source ------------------------------------------------------------------------------------------------------------


def prints(trees: Mapping[str, ast.Module]) -> list[str]:
    """Find calls of print, with or without a lint exemption, outside the command line and the demo."""
    return [
        f"{path}:{node.lineno}: print()"
        for path, tree in trees.items()
        if not re.search(r"/(cli|demo)[^/]*(\.py$|/)", path)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def dead_modules(graph: grimp.ImportGraph, entry_points: set[str]) -> list[str]:
    """Find modules that no other module imports and no command starts; packages live through their modules."""
    return [
        f"{module}: imported by nothing"
        for module in sorted(graph.modules)
        if not graph.find_children(module)
        and not graph.find_modules_that_directly_import(module)
        and module not in entry_points
        and not module.endswith("__main__")
    ]


def entry_points() -> set[str]:
    """Name the modules that start something: the commands of pyproject and what is used from outside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {target.partition(":")[0] for target in project["scripts"].values()} | set(USED_FROM_OUTSIDE)


def test_print_and_dead_module_are_found() -> None:
    """A print outside cli and demo and a module without importer are findings."""
    tree = ast.parse("print(1)")
    assert prints({"src/p/a.py": tree, "src/p/cli.py": tree, "src/p/demo/view.py": tree}) == ["src/p/a.py:1: print()"]
    graph = grimp.ImportGraph()
    for module in ("p", "p.used", "p.command", "p.dead"):
        graph.add_module(module)
    graph.add_import(importer="p.command", imported="p.used")
    assert dead_modules(graph, {"p.command"}) == ["p.dead: imported by nothing"]


def test_only_command_line_and_demo_print() -> None:
    """Library code logs or returns; it does not print."""
    assert prints(python_files("src")) == []


@pytest.mark.parametrize("package", ["fraudstream", "fraudstream_producers"])
def test_no_module_is_dead(package: str) -> None:
    """Every module is imported by another one, is a command, or is named here with who uses it."""
    assert dead_modules(grimp.build_graph(package, cache_dir=None), entry_points()) == []


# --- pages -------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """Derive the link target that a rendered heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(pages: Mapping[str, str], root: Path) -> list[str]:
    """Find links to files or headings of the repository that are not there."""
    findings = []
    for page, text in pages.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, fragment = target.partition("#")
            file = (root / page).parent / name if name else root / page
            if not file.exists():
                findings.append(f"{page}: {target} does not exist")
            elif fragment and file.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                if fragment not in map(anchor, headings):
                    findings.append(f"{page}: {target} has no such heading")
    return findings


def readme_faults(text: str) -> list[str]:
    """Find a README that is too long, or whose reader scrolls before the first command."""
    lines = text.splitlines()
    commands = [number for number, line in enumerate(lines, start=1) if re.match(r"\s*(\$ )?(make|pip) \w", line)]
    findings = []
    if len(lines) > README_LINES_MAX:
        findings.append(f"{len(lines)} lines, limit {README_LINES_MAX}")
    if not commands or commands[0] >= README_FIRST_COMMAND_LINE_MAX:
        findings.append(f"no command before line {README_FIRST_COMMAND_LINE_MAX}")
    return findings


def commands(group: Any, name: str) -> list[str]:
    """List every command below a group, in full: `fraudstream topics create`."""
    found = []
    for child, command in sorted(group.commands.items()):
        full = f"{name} {child}"
        found += commands(command, full) if hasattr(command, "commands") else [full]
    return found


def test_missing_command_is_found() -> None:
    """Commands are listed with those of their groups, so that a page can be held against them."""
    program, group = typer.Typer(), typer.Typer()
    for app, name in ((program, "worker"), (program, "train"), (group, "create")):
        app.command(name)(lambda: None)
    program.add_typer(group, name="topics")
    assert commands(typer.main.get_command(program), "p") == ["p topics create", "p train", "p worker"]


def test_broken_link_is_found(tmp_path: Path) -> None:
    """A link to a missing file or heading is a finding; web addresses, code blocks and good links are not."""
    (tmp_path / "b.md").write_text("# The *order* of `commits`\n", encoding="utf-8")
    page = "[a](b.md#the-order-of-commits) [b](b.md#no) [c](c.md) [d](https://x.org/c.md)\n```\n[e](e.md)\n```\n"
    assert broken_links({"a.md": page}, tmp_path) == ["a.md: b.md#no has no such heading", "a.md: c.md does not exist"]


def test_long_winded_readme_is_found() -> None:
    """A README with 121 lines or with its first command at line 20 is a finding."""
    assert readme_faults("intro\n" * 18 + "    make demo\n") == []
    assert readme_faults("intro\n" * 19 + "make demo\n" + "more\n" * 101) == [
        "121 lines, limit 120",
        "no command before line 20",
    ]


def test_links_point_somewhere() -> None:
    """Every link of README, CHANGELOG and docs into the repository leads to a file and a heading that exist."""
    assert broken_links(markdown_files(), ROOT) == []


def test_every_decision_is_in_the_index() -> None:
    """Each page of docs/decisions is linked from its index."""
    pages = {path.name for path in (ROOT / "docs/decisions").glob("*.md")} - {"README.md"}
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", markdown_files()["docs/decisions/README.md"]))
    assert pages - linked == set()


def test_every_command_is_in_the_reference() -> None:
    """The page on the command line names every command of `fraudstream`."""
    page = markdown_files()["docs/reference/cli.md"]
    every = commands(typer.main.get_command(importlib.import_module("fraudstream.cli").app), "fraudstream")
    assert [command for command in every if f"`{command}" not in page] == []


def test_readme_is_short_and_starts_with_a_command() -> None:
    """README has at most 120 lines and shows its first command before line 20."""
    assert readme_faults((ROOT / "README.md").read_text(encoding="utf-8")) == []


# --- tracked files -----------------------------------------------------------------------------------------------------

# Neither pattern matches its own text, so that this file is not its own finding.
REGISTRY = re.compile(
    r"\b(pypi|pythonhosted|maven|maven\.apache|docker|npmjs)\.(org|io|com)\b|--((extra-)?index-url|find[-]links)\b"
)
# Not inside an address or a longer path: https://host/home/x and $PREFIX/root/x are no directories of this machine.
PRIVATE_PATH = re.compile(r"(?<![\w./)}\-])/(?:home|root|work|Users)/[\w.]")


def private_addresses(texts: Mapping[str, str]) -> list[str]:
    """Find addresses of package registries and paths of one person's machine."""
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if REGISTRY.search(line) or PRIVATE_PATH.search(line)
    ]


def test_registry_address_and_private_path_are_found() -> None:
    """A registry's host, an index option and a path under a home directory are findings."""
    wrong = ["https://pypi." + "org/simple", "pip --index" + "-url x", "cd /home" + "/me", "'/work" + "/main'"]
    right = ["https://x.org/home/me", "$(ROOT)/work/a", "/var/lib/app", "docker.io_loop"]
    assert len(private_addresses({"wrong": "\n".join(wrong), "right": "\n".join(right)})) == len(wrong)


def test_no_tracked_file_names_a_registry_or_a_private_path() -> None:
    """Where packages come from and where the repository lies is each machine's own business."""
    assert private_addresses(tracked_text_files()) == []
