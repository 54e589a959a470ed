"""Settings: sources, errors in one line, secrets, documentation."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from fraudstream import settings
from fraudstream.errors import SettingsError

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FRAUDSTREAM_")]:
        monkeypatch.delenv(name)


def _paths(model: type[BaseModel], before: str = "") -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _paths(kind, f"{before}{name.upper()}__")
        else:
            found.append(before + name.upper())
    return found


def test_every_setting_is_documented() -> None:
    """The reference names each setting by the name of its variable."""
    text = DOCS.read_text("utf-8")
    assert [path for path in _paths(settings.Settings) if f"`{path}`" not in text] == []


def test_defaults_need_no_variable() -> None:
    """Without any variable the settings are those of one machine."""
    assert settings.load().kafka.bootstrap_servers == "localhost:9092"


def test_a_variable_wins_over_the_file_and_an_override_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Override, variable, file, default: in this order."""
    file = tmp_path / "f.toml"
    file.write_text('batch_records_max = 10\nlog_level = "debug"\n[kafka]\ngroup = "file"\nbootstrap_servers = "f:1"\n')
    monkeypatch.setenv("FRAUDSTREAM_CONFIG", str(file))
    monkeypatch.setenv("FRAUDSTREAM_KAFKA__GROUP", "variable")
    monkeypatch.setenv("FRAUDSTREAM_BATCH_RECORDS_MAX", "20")
    found = settings.load({"batch_records_max": 30})
    assert found.batch_records_max == 30
    assert (found.kafka.group, found.kafka.bootstrap_servers, found.log_level) == ("variable", "f:1", "debug")


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ("score", ("score",)),
        ("score, label", ("score", "label")),
        ('["label"]', ("label",)),
        ("", ("score", "label", "learn")),
        ("label,label", ("label",)),
    ],
)
def test_roles_are_a_json_list_or_names_with_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, roles: tuple[str, ...]
) -> None:
    """Both forms name the same roles, each once."""
    monkeypatch.setenv("FRAUDSTREAM_ROLES", value)
    assert settings.load().roles == roles


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FRAUDSTREAM_BATCH_RECORDS_MAX", "zero", "FRAUDSTREAM_BATCH_RECORDS_MAX"),
        ("FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S", "0", "FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S"),
        ("FRAUDSTREAM_ROLES", '["scor"]', "FRAUDSTREAM_ROLES"),
        ("FRAUDSTREAM_ROLES", "score label", "FRAUDSTREAM_ROLES"),
        ("FRAUDSTREAM_ROLES", "5", "FRAUDSTREAM_ROLES"),
        ("FRAUDSTREAM_ROLES", "{}", "FRAUDSTREAM_ROLES"),
        ("FRAUDSTREAM_ROLES", "[1]", "FRAUDSTREAM_ROLES"),
        ("FRAUDSTREAM_ROLES", "[]", "at least one role"),
        ("FRAUDSTREAM_KAFKA__BOOTSTRAP", "x:1", "FRAUDSTREAM_KAFKA__BOOTSTRAP: there is no such setting"),
        ("FRAUDSTREAM_KAFAK__GROUP", "x", "FRAUDSTREAM_KAFAK__GROUP: there is no such setting"),
        ("FRAUDSTREAM_CONFIG", "/absent.toml", "no such file"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    """Out of range, misspelt or unreadable: one line that names the setting."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no TOML, or that holds an unknown name, is refused in one line."""
    file = tmp_path / "f.toml"
    monkeypatch.setenv("FRAUDSTREAM_CONFIG", str(file))
    for text in ("= 1", "unknown = 1", "[kafka]\nunknown = 1"):
        file.write_text(text)
        with pytest.raises(SettingsError) as caught:
            settings.load()
        assert "\n" not in str(caught.value)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the Redis URL nor the broker's password is shown."""
    monkeypatch.setenv("FRAUDSTREAM_REDIS__URL", "redis://:hunter2@h:1")
    monkeypatch.setenv("FRAUDSTREAM_KAFKA__SASL_PASSWORD", "hunter3")
    assert "hunter" not in str(settings.shown(settings.load()))
