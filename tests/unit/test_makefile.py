"""The Makefile is the first program a newcomer runs: it lists itself and names what is missing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# What every target's recipe calls besides Python.
SYSTEM_TOOLS = ("awk", "grep", "make", "mktemp", "rm", "sed", "sh", "touch")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on PATH")


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in the repository; `path` replaces PATH."""
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "VENV"}}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def machine_with(directory: Path, **pythons: str) -> str:
    """Build a PATH on which only the system tools and stand-ins for Python interpreters exist.

    A stand-in is named by its command (`_` for `.`: `python3_11`) and answers as its version says. A version that ends
    in `-without-pip` cannot import ensurepip, as on Debian without the package python3-venv.
    """
    for tool in SYSTEM_TOOLS:
        (directory / tool).symlink_to(shutil.which(tool) or "/bin/false")
    for name, answer in pythons.items():
        version, _, missing = answer.partition("-")
        new_enough = tuple(map(int, version.split("."))) >= (3, 11)
        stand_in = directory / name.replace("_", ".")
        stand_in.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f"  *print*) echo {version} ;;\n"
            f"  *version_info*) exit {0 if new_enough else 1} ;;\n"
            f"  *ensurepip*) exit {1 if missing else 0} ;;\n"
            f'  *-m\\ venv*) echo "venv made by $0" ;;\n'
            "esac\n",
            encoding="utf-8",
        )
        stand_in.chmod(0o755)
    return str(directory)


def create_venv(directory: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Ask make for a virtual environment on a machine that has these interpreters."""
    venv = directory / "venv"
    machine = directory / "bin"
    machine.mkdir()
    return make(f"VENV={venv}", f"{venv}/bin/python", path=machine_with(machine, **pythons))


def test_help_lists_every_target() -> None:
    """`make` alone lists each target that is declared phony, with a description."""
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    listed = dict(re.findall(r"^  make (\S+) +(\S.+)$", make().stdout, re.MULTILINE))
    assert set(listed) == set(phony.group(1).split())


def test_old_python3_gives_way_to_a_newer_one_on_path(tmp_path: Path) -> None:
    """Where python3 is too old, a python3.12 on PATH makes the environment."""
    answer = create_venv(tmp_path, python3="3.9", python3_12="3.12")
    assert answer.returncode == 0, answer.stderr
    assert "venv made by python3.12" in answer.stdout.replace(f"{tmp_path}/bin/", "")


def test_python_without_ensurepip_is_passed_over(tmp_path: Path) -> None:
    """An interpreter that cannot make environments does not stop make from taking one that can."""
    answer = create_venv(tmp_path, python3="3.11-without-pip", python3_13="3.13")
    assert answer.returncode == 0, answer.stderr
    assert "with python3.13" in answer.stdout


def test_newer_python_than_tested_is_taken_with_a_word(tmp_path: Path) -> None:
    """A Python newer than the constraints were tried with is used when there is no other, and make says so."""
    answer = create_venv(tmp_path, python3="3.15")
    assert answer.returncode == 0, answer.stderr
    assert "trying the newer python3" in answer.stdout


def test_missing_ensurepip_names_the_package_to_install(tmp_path: Path) -> None:
    """Debian's Python without python3-venv ends with the name of the package that is missing."""
    answer = create_venv(tmp_path, python3="3.11-without-pip")
    assert answer.returncode != 0
    assert "apt-get install python3.11-venv" in answer.stderr


def test_too_old_python_says_what_was_found(tmp_path: Path) -> None:
    """With only an old Python, make names the version needed, the versions found and how to point to another."""
    answer = create_venv(tmp_path, python3="3.9")
    assert answer.returncode != 0
    assert "Python 3.11 or newer is needed" in answer.stderr
    assert "python3=3.9" in answer.stderr
    assert "PYTHON=/path/to" in answer.stderr


def test_no_python_at_all_is_said_plainly(tmp_path: Path) -> None:
    """With no Python on PATH the message says that none was found."""
    answer = create_venv(tmp_path)
    assert answer.returncode != 0
    assert "found: none" in answer.stderr


def test_makefile_names_no_package_index() -> None:
    """Where packages come from is the machine's own pip configuration, never the Makefile's."""
    assert not re.search(r"--((extra-)?index-url|find[-]links|trusted-host)|https?://", MAKEFILE)


def test_nothing_that_make_starts_reports_usage() -> None:
    """The usage reports of onnxruntime are switched off for every command that make runs."""
    assert re.search(r"^export ORT_DISABLE_TELEMETRY := 1$", MAKEFILE, re.MULTILINE)
