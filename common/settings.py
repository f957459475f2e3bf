"""Settings that a person edits in a file and overrides on the command line, checked all at once.

A settings class is a flat list of fields. What concerns one field is in its type. What concerns several is in a
cross-field check: a function whose parameters are named after fields and which returns what is wrong and what to do,
or None. All problems are reported together; a check runs where its own fields are valid, whatever the others are.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from common.command_line import option_name, read_command_line, suggestion
from common.errors import UserError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
CrossFieldCheck: TypeAlias = Callable[..., str | None]


class Settings(BaseSettings):
    """Base of a settings class: immutable, no unknown fields, and nothing read but the file and the command line.

    Environment variables and ``.env`` files are not read: a stray ``BATCH_SIZE`` in a shell must not override the file.
    The docstring under a field is its ``--help``; a comment ``# --- Heading`` above fields is the heading there.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )
    cross_field_checks: ClassVar[tuple[CrossFieldCheck, ...]] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("*", mode="before")
    @classmethod
    def _check_kind(cls, value: object, information: ValidationInfo) -> object:
        return _check_kind(cls.model_fields[str(information.field_name)], value)

    @model_validator(mode="after")
    def _check_fields_together(self) -> Self:
        problems = _cross_field_problems(type(self), dict(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class LoadedSettings(Generic[SettingsT]):
    """Checked settings and where they come from."""

    config: SettingsT
    preset: str  # the one asked for, or the first one: the file as it is written
    preset_asked_for: bool
    preset_changes: dict[str, tuple[object, object]]  # field -> (file's value, preset's), unless overridden or equal
    explicitly_set: frozenset[str]  # fields on the command line or in the preset that was asked for
    resume: bool
    file_values: Mapping[str, JSON]  # what the file alone says; only comparing it with another time's shows an edit


def load_settings(
    config_class: type[SettingsT], presets: Mapping[str, Mapping[str, object]], argv: Sequence[str], *, program: str
) -> LoadedSettings[SettingsT]:
    """Combine command line, preset and file, in this order of precedence, and check the result.

    Args:
        config_class: the fields; their defaults are what the file says.
        presets: values by field name for each preset. The first one is the file as it is written.
        argv: the arguments without the program's name.
        program: the program's name for ``--help``, which prints every constant and ends the program with exit code 0.

    Raises:
        UserError: lists everything that is wrong with field, value, origin and remedy.
    """
    typed = read_command_line(config_class, tuple(presets), argv, program)
    problems = list(typed.problems)
    preset_name = next(iter(presets)) if typed.preset is None else typed.preset
    if preset_name not in presets:
        near = suggestion(preset_name, presets) or f"; choose from {', '.join(presets)}"
        problems.append(f"--preset {preset_name} does not exist{near}")
    preset = presets.get(preset_name, {})
    problems += _unknown_fields(config_class, preset, f"preset {preset_name!r}")
    file_name = Path(inspect.getfile(config_class)).name
    defaults = {name: field.get_default() for name, field in config_class.model_fields.items()}
    values = {**defaults, **preset, **typed.values}
    origins = {
        **dict.fromkeys(defaults, file_name),
        **dict.fromkeys(preset, f"preset {preset_name!r} in {file_name}"),
        **{name: f"command line {option_name(name)}" for name in typed.values},
    }
    valid, more_problems = _check(config_class, values, origins, skip=typed.unreadable)
    _raise_if_any(problems + more_problems)
    config = config_class(**valid)
    changes = {
        name: (defaults[name], valid[name])
        for name in preset
        if name not in typed.values and valid[name] != defaults[name]
    }
    explicit = frozenset(typed.values) | (frozenset(preset) if typed.preset is not None else frozenset())
    # Not checked: values that the command line or a preset replace may be impossible together.
    file_values = config_class.model_construct(**defaults).model_dump(mode="json", warnings=False)
    return LoadedSettings(config, preset_name, typed.preset is not None, changes, explicit, typed.resume, file_values)


def config_as_json(config: Settings) -> dict[str, JSON]:
    """Return the settings as what JSON can hold: folders as text, tuples as lists."""
    return config.model_dump(mode="json")


def config_from_json(config_class: type[SettingsT], mapping: Mapping[str, object]) -> SettingsT:
    """Return the settings that :func:`config_as_json` wrote.

    Raises:
        UserError: lists the fields that are missing, unknown or have a value that cannot be used.
    """
    origin = "saved configuration"
    problems = _unknown_fields(config_class, mapping, origin)
    missing = [name for name in config_class.model_fields if name not in mapping]
    problems += [f"{name} is missing in the {origin}; it was written by another version" for name in missing]
    valid, more_problems = _check(config_class, mapping, dict.fromkeys(mapping, origin), skip=missing)
    _raise_if_any(problems + more_problems)
    return config_class(**valid)


def _check(
    config_class: type[Settings], values: Mapping[str, object], origins: Mapping[str, str], skip: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that are valid, converted, and a sentence for everything that is wrong."""
    valid: dict[str, Any] = {}
    problems = []
    for name, field in config_class.model_fields.items():
        if name in skip:
            continue
        try:
            valid[name] = _check_field(field, values[name])
        except ValueError as error:
            problems.append(f"{name} = {_show(values[name])} ({origins[name]}): {_reasons(error)}")
    return valid, problems + _cross_field_problems(config_class, valid)


def _check_field(field: FieldInfo, value: object) -> object:
    """Return ``value`` as the field holds it; raise ValueError, or pydantic's subclass of it, where it cannot."""
    _check_kind(field, value)
    adapter: TypeAdapter[object] = TypeAdapter(field.rebuild_annotation(), config=ConfigDict(allow_inf_nan=False))
    return adapter.validate_python(value)


def _check_kind(field: FieldInfo, value: object) -> object:
    """Refuse True as the number 1, which Python would allow, and 1 as a switch, with a ValueError."""
    if field.annotation is bool and not isinstance(value, bool):
        raise ValueError("this is a switch; use True or False")
    values = value if isinstance(value, list | tuple) else (value,)
    if field.annotation is not bool and any(isinstance(each, bool) for each in values):
        raise ValueError("True and False are for switches; this needs a value")
    return value


def _cross_field_problems(config_class: type[Settings], valid: Mapping[str, object]) -> list[str]:
    """Return a sentence for each cross-field check that fails, of those whose fields are all in ``valid``."""
    problems = []
    for check in config_class.cross_field_checks:
        names = tuple(inspect.signature(check).parameters)
        if all(name in valid for name in names):
            problem = check(**{name: valid[name] for name in names})
            if problem is not None:
                problems.append(f"{', '.join(f'{name} = {_show(valid[name])}' for name in names)}: {problem}")
    return problems


def _unknown_fields(config_class: type[Settings], mapping: Mapping[str, object], origin: str) -> list[str]:
    """Return a sentence for each name that is no field."""
    fields = config_class.model_fields
    unknown = [name for name in mapping if name not in fields]
    return [
        f"{name} ({origin}) is not a constant{suggestion(name.upper(), fields) or '; remove it'}" for name in unknown
    ]


def _reasons(error: ValueError) -> str:
    """Return what is wrong with a field, as the end of a sentence about it."""
    if not isinstance(error, ValidationError):
        return str(error)
    reasons = []
    for detail in error.errors():
        message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
        position = "".join(f"item {index + 1} " for index in detail["loc"] if isinstance(index, int))
        reasons.append(position + message)
    return "; ".join(reasons)


def _show(value: object) -> str:
    """Return a value as a person would type it; in quotes where blanks would be lost."""
    text = str(value)
    has_blanks = text != "".join(text.split())
    return repr(value) if isinstance(value, str) and (has_blanks or not text) else text


def _raise_if_any(problems: Sequence[str]) -> None:
    if problems:
        count = "One setting" if len(problems) == 1 else f"{len(problems)} settings"
        raise UserError("\n  - ".join([f"{count} cannot be used:", *problems]))
