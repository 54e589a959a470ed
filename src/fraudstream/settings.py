"""Settings: environment variables `FRAUDSTREAM_*`, one TOML file, defaults that work on one machine.

A variable wins over the file, the file over the default. Nested settings take a double underscore:
`FRAUDSTREAM_LIMITS__AMOUNT_MAX=5000`. The file is named by `FRAUDSTREAM_CONFIG`. A setting that is unknown, unreadable or
out of range raises `SettingsError` with one line that names it.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fraudstream import codec, topics
from fraudstream.core.learning import Policy
from fraudstream.core.quality_figures import CostMatrix
from fraudstream.errors import SettingsError

PREFIX: Final = "FRAUDSTREAM_"
CONFIG_VARIABLE: Final = PREFIX + "CONFIG"
# Read by others than the settings: the file that holds them, and the tests' reference data.
_OTHER_VARIABLES: Final = frozenset({CONFIG_VARIABLE, PREFIX + "DATA"})

Role = Literal["score", "label", "learn"]
StateLost = Literal["stop", "accept", "replay"]
OffsetsExpired = Literal["stop", "earliest"]
StateUnavailablePolicy = Literal["wait", "score-degraded"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """The broker."""

    bootstrap_servers: str = "localhost:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: Path | None = None
    group: str = "fraudstream"
    session_timeout_s: float = Field(default=15.0, ge=1, le=300)
    publish_timeout_s: float = Field(default=30.0, ge=1, le=600)
    fetch_wait_max_ms: int = Field(default=100, ge=1, le=10_000)

    def client(self) -> dict[str, Any]:
        """What confluent-kafka needs to connect."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "client.id": f"fraudstream-{socket.gethostname()}",
        }
        if self.security_protocol.startswith("SASL"):
            config |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password.get_secret_value(),
            }
        if self.ssl_ca_file:
            config["ssl.ca.location"] = str(self.ssl_ca_file)
        return config


class RedisSettings(_Section):
    """The state store. The URL may carry a password; it is masked wherever settings are shown."""

    url: SecretStr = SecretStr("redis://localhost:6379/0")
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    prefix: str = Field(default="fraudstream", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    decision_retention_days: int = Field(default=30, ge=1, le=400)
    transactions_per_day: int = Field(default=1_000_000, ge=1)
    parked_labels_max: int = Field(default=1_000_000, ge=0)


class LateLabelSettings(_Section):
    """The index on disk of decisions that Redis has dropped; without a path there is none."""

    path: Path | None = None
    retention_days: int = Field(default=180, ge=2, le=1_000)


class ModelSettings(_Section):
    """Which model decides: a registry directory, a name, a version or `champion`."""

    registry: Path = Path("registry")
    name: str = "fraud"
    version: str = "champion"


class LearnSettings(_Section):
    """The online model: what it may say, how it learns, and when it must not."""

    policy: Policy = "shadow"
    classifier: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    pickle_key: SecretStr = SecretStr("")
    learning_rate: float = Field(default=0.0001, gt=0, le=1)
    l2: float = Field(default=0.0, ge=0, le=1)
    warm_up: int = Field(default=2_000, ge=100)
    legit_share: float = Field(default=1.0, gt=0, le=1)
    blend_memory: float = Field(default=10_000, ge=100)
    fraud_share_min: float = Field(default=1e-5, ge=0, le=1)
    fraud_share_max: float = Field(default=0.2, ge=0, le=1)
    guard_memory: float = Field(default=2_000, ge=100)
    examples_per_day_max: float = Field(default=2_000_000, ge=1)


class LimitSettings(_Section):
    """Limits on one record; see `fraudstream.codec.Limits` for the reasons."""

    payload_bytes_max: int = codec.Limits().payload_bytes_max
    id_length_max: int = codec.Limits().id_length_max
    amount_max: float = codec.Limits().amount_max
    nesting_depth_max: int = codec.Limits().nesting_depth_max
    event_time_behind_ms_max: int = codec.Limits().event_time_behind_ms_max
    event_time_ahead_ms_max: int = codec.Limits().event_time_ahead_ms_max


class TopicSettings(_Section):
    """Topic names."""

    transactions: str = topics.TOPICS.transactions
    labels: str = topics.TOPICS.labels
    alerts: str = topics.TOPICS.alerts
    decisions: str = topics.TOPICS.decisions
    transactions_dead_letter: str = topics.TOPICS.transactions_dead_letter
    labels_dead_letter: str = topics.TOPICS.labels_dead_letter
    examples: str = topics.TOPICS.examples
    model_events: str = topics.TOPICS.model_events


class DriftSettings(_Section):
    """When drift is an alarm."""

    alarms_per_month: float = Field(default=1.0, gt=0, le=1_000)
    look_every_s: float = Field(default=10.0, ge=0.5, le=3_600)
    cool_down_h: float = Field(default=24.0, ge=0, le=24 * 90)
    reject_share_max: float = Field(default=0.01, gt=0, le=1)


class QualitySettings(_Section):
    """What alerts, and frauds without one, cost (major units); how many alerts a day can be looked into."""

    alerts_per_day: int = Field(default=100, ge=1)
    review_cost: float = Field(default=5.0, ge=0)
    false_block_cost: float = Field(default=20.0, ge=0)
    saved_share: float = Field(default=1.0, ge=0, le=1)
    lost_share: float = Field(default=1.0, ge=0)

    def matrix(self) -> CostMatrix:
        """The costs alone."""
        return CostMatrix(self.review_cost, self.saved_share, self.lost_share, self.false_block_cost)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    late_labels: LateLabelSettings = LateLabelSettings()
    model: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    topics: TopicSettings = TopicSettings()
    learn: LearnSettings = LearnSettings()
    drift: DriftSettings = DriftSettings()
    quality: QualitySettings = QualitySettings()
    roles: Annotated[tuple[Role, ...], NoDecode] = ("score", "label", "learn")
    publish_decisions: bool = True
    batch_records_max: int = Field(default=1024, ge=1, le=10_000)
    outage_s_max: float = Field(default=300.0, ge=1)
    stalled_s_max: float = Field(default=300.0, ge=1)
    on_state_lost: StateLost = "stop"
    on_offsets_expired: OffsetsExpired = "stop"
    on_state_unavailable: StateUnavailablePolicy = "wait"
    degraded_after_s: float = Field(default=5.0, ge=0, le=600)
    health_file: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @field_validator("roles", mode="before")
    @classmethod
    def _names(cls, roles: Any) -> Any:
        """A variable holds a JSON list or names with commas between them."""
        if not isinstance(roles, str):
            return roles
        try:
            return json.loads(roles)
        except ValueError:
            return [name.strip() for name in roles.split(",")]

    @field_validator("roles")
    @classmethod
    def _some_role(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        if not roles:
            raise ValueError("name at least one role")
        return tuple(dict.fromkeys(roles))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG_VARIABLE)
        file = (TomlConfigSettingsSource(settings_cls, toml_file=Path(path)),) if path else ()
        return (init_settings, env_settings, *file)


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings; `overrides` (a command's options) win. Raises `SettingsError` in one line."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise SettingsError(f"{CONFIG_VARIABLE}={path}: there is no such file")
    _check_variables()
    try:
        return Settings(**(overrides or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = "__".join(str(part) for part in first["loc"]).upper()
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise SettingsError(f"{PREFIX}{where}: {first['msg']}{more}; see fraudstream worker --print-config") from error
    except Exception as error:  # a source that cannot be parsed: pydantic-settings and tomllib raise their own kinds
        raise SettingsError(f"settings cannot be read: {error}") from error


def overrides(env: Mapping[str, str]) -> dict[str, Any]:
    """A worker's environment as what `load` takes, for a process that wants its settings and not its environment.

    >>> overrides({"FRAUDSTREAM_REDIS__PREFIX": "demo", "FRAUDSTREAM_LOG_LEVEL": "error"})
    {'redis': {'prefix': 'demo'}, 'log_level': 'error'}
    """
    found: dict[str, Any] = {}
    for name, value in env.items():
        head, _, rest = name.removeprefix(PREFIX).lower().partition("__")
        if rest:
            found.setdefault(head, {})[rest] = value
        else:
            found[head] = value
    return found


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, secrets masked, paths as text."""
    return settings.model_dump(mode="json")


def _check_variables() -> None:
    """A misspelt variable would be ignored in silence."""
    for name in os.environ:
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        head, _, rest = name.removeprefix(PREFIX).lower().partition("__")
        known = Settings.model_fields.get(head)
        section = known.annotation if known else None
        nested = isinstance(section, type) and issubclass(section, _Section)
        if known is None or (rest and not (nested and rest in section.model_fields)):  # type: ignore[union-attr] # nested implies it
            raise SettingsError(f"{name}: there is no such setting; fraudstream worker --print-config lists all")
