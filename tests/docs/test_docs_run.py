"""What the documentation shows works: the README's example and the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fraudstream

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(fraudstream.__path__, "fraudstream.")
    if not info.ispkg
    and ">>>" in (Path(fraudstream.__path__[0]).parent / (info.name.replace(".", "/") + ".py")).read_text("utf-8")
)


def test_the_readme_example_runs() -> None:
    """Every Python block of the README runs as it stands, its assertions included."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    """The examples of a module's docstrings give what they say."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
