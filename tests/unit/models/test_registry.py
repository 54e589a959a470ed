"""Versions on disk: whole or not there, numbered once, and refused when anything is not as it was written."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fraudstream.errors import ModelError
from fraudstream.models.artefact import BASELINE, FILES, GOLDEN, MANIFEST, MODEL, Artefact
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import ALIASES, Registry


@pytest.fixture
def registry(artefact: Artefact, tmp_path: Path) -> Registry:
    """A registry with version 1 of `fraud`, free to be damaged."""
    made = Registry(tmp_path / "registry")
    add(made, artefact)
    return made


def add(registry: Registry, artefact: Artefact, name: str = "fraud") -> int:
    """Add a copy of a version."""

    def manifest_of(version: int, created_at: str) -> msgspec.Struct:
        return msgspec.structs.replace(artefact.manifest, name=name, version=version, created_at=created_at)

    files = {file: artefact.files[file] for file in (MODEL, BASELINE, GOLDEN)}
    return registry.add(name, files, manifest_of, card=lambda manifest: f"# {manifest.name} {manifest.version}").version


def add_many(directory: Path, artefact: Artefact, count: int) -> None:
    for _ in range(count):
        add(Registry(directory), artefact)


# --- damage ------------------------------------------------------------------------------------------------------------


def change_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("damage", [change_last_byte, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named(registry: Registry, file: str, damage: Callable[[Path], None]) -> None:
    """A changed, missing or emptied file ends a load with one line that names model, version and file."""
    damage(registry.directory / "fraud" / "1" / file)
    with pytest.raises(ModelError, match=f"^model fraud version 1: {file}") as caught:
        registry.load("fraud")
    assert "\n" not in str(caught.value)


def test_a_changed_threshold_is_found(registry: Registry) -> None:
    """The manifest is sealed: a number changed in place does not go unseen, however well-formed it is."""
    path = registry.directory / "fraud" / "1" / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["thresholds"]["review"] = 0.99
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="was changed after it was written"):
        registry.load("fraud")


def test_a_layout_change_in_the_manifest_is_none(registry: Registry) -> None:
    """White space and key order are not content."""
    path = registry.directory / "fraud" / "1" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes())))
    assert registry.load("fraud").manifest.version == 1


def test_another_format_is_refused(registry: Registry) -> None:
    """A manifest of a later format says so, before its fields are believed."""
    path = registry.directory / "fraud" / "1" / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ModelError, match="format 2 is not 1"):
        registry.load("fraud")


def test_a_version_under_another_number_is_refused(registry: Registry) -> None:
    """A directory that was copied or renamed is not the version its name says."""
    shutil.copytree(registry.directory / "fraud" / "1", registry.directory / "fraud" / "2")
    with pytest.raises(ModelError, match="its manifest says fraud version 1"):
        registry.load("fraud", 2)


@pytest.mark.parametrize(
    ("name", "version", "complaint"),
    [
        ("fraud", 7, r"has no version 7 \(it has: 1\)"),
        ("fraud", "../1", "is not a version"),
        ("fraud", "0", "is not a version"),
        ("other", "champion", r"no model 'other' \(models there: fraud\)"),
        ("../fraud", 1, "is not a model name"),
    ],
)
def test_what_is_not_there_is_said(registry: Registry, name: str, version: str | int, complaint: str) -> None:
    """A version, model or name that cannot be ends with one line that says what there is."""
    with pytest.raises(ModelError, match=complaint):
        registry.load(name, version)


def test_an_empty_registry_asks_for_a_training(tmp_path: Path) -> None:
    """A directory that does not exist has no models, and says what to do."""
    with pytest.raises(ModelError, match="train one first"):
        Registry(tmp_path / "nowhere").load("fraud")
    assert Registry(tmp_path / "nowhere").names() == []


# --- versions and aliases ----------------------------------------------------------------------------------------------


def test_the_first_version_becomes_champion_and_later_ones_do_not(registry: Registry, artefact: Artefact) -> None:
    """Versions are numbered from 1; promotion of a later one is explicit and remembers the one before."""
    assert add(registry, artefact) == 2
    assert registry.versions("fraud") == [1, 2]
    assert (registry.champion("fraud"), registry.latest("fraud")) == (1, 2)
    registry.set_champion("fraud", 2)
    aliases = registry.aliases("fraud")
    assert aliases is not None
    assert (aliases.champion, aliases.previous) == (2, 1)
    assert registry.load("fraud").manifest.version == 2
    assert registry.load("fraud", "latest").manifest.version == 2


def test_a_damaged_version_is_not_promoted(registry: Registry, artefact: Artefact) -> None:
    """Promotion loads the version first; the champion stays."""
    add(registry, artefact)
    change_last_byte(registry.directory / "fraud" / "2" / MODEL)
    with pytest.raises(ModelError, match="sha256 differs"):
        registry.set_champion("fraud", 2)
    assert registry.champion("fraud") == 1


def test_unreadable_aliases_are_said(registry: Registry) -> None:
    """Damaged aliases are no reason to guess a champion; versions by number still load."""
    (registry.directory / "fraud" / ALIASES).write_text("{")
    with pytest.raises(ModelError, match="set the champion anew"):
        registry.load("fraud")
    assert registry.load("fraud", 1).manifest.version == 1


def test_numbers_do_not_come_again(registry: Registry, artefact: Artefact) -> None:
    """A version that was removed leaves a gap only if it was not the newest; names do not share numbers."""
    add(registry, artefact)
    shutil.rmtree(registry.directory / "fraud" / "1")
    assert add(registry, artefact) == 3
    assert add(registry, artefact, name="other") == 1
    assert registry.names() == ["fraud", "other"]


def test_processes_that_register_at_once_take_different_numbers(artefact: Artefact, tmp_path: Path) -> None:
    """Three processes write five versions each: fifteen whole versions, one champion, nothing left over."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_many, args=(tmp_path, artefact, 5)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    registry = Registry(tmp_path)
    assert registry.versions("fraud") == list(range(1, 16))
    assert [registry.load("fraud", version).manifest.version for version in range(1, 16)] == list(range(1, 16))
    assert registry.champion("fraud") in range(1, 16)
    assert sorted(path.name for path in (tmp_path / "fraud").iterdir() if path.name.startswith(".")) == []


def test_a_failed_write_leaves_nothing(registry: Registry, artefact: Artefact) -> None:
    """If the manifest cannot be made, there is no half version and no staging directory."""

    def broken(version: int, created_at: str) -> msgspec.Struct:
        raise RuntimeError("no manifest")

    with pytest.raises(RuntimeError, match="no manifest"):
        registry.add("fraud", {}, broken, card=lambda manifest: "")
    assert sorted(path.name for path in (registry.directory / "fraud").iterdir()) == ["1", ALIASES]


def test_a_directory_that_cannot_be_written_is_said(artefact: Artefact, tmp_path: Path) -> None:
    """A registry under a file ends with one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write: Not a directory"):
        add(Registry(tmp_path / "file"), artefact)


def test_a_copy_of_a_registry_serves(registry: Registry) -> None:
    """Nothing in a version knows where it lies: a copied registry loads and decides."""
    elsewhere = registry.directory.parent / "elsewhere"
    shutil.copytree(registry.directory, elsewhere)
    assert OnnxModel(Registry(elsewhere).load("fraud")).version == "1"
