"""The command line of a settings class: one option for each constant, and all mistakes at once."""

import argparse
import dataclasses
import difflib
import inspect
import json
import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliSettingsSource

_HEADING = re.compile(r"\s*# --- (?P<heading>.+?)(?: -+)?$")
_FIELD = re.compile(r"\s*(?P<name>[A-Z][A-Z0-9_]*)\s*:")
_BOUNDS: dict[type, str] = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below", MultipleOf: "a multiple of"}
_NO_VALUE = object()  # of an option without its value, at which argparse would stop


@dataclass(frozen=True)
class CommandLine:
    """What was typed."""

    values: dict[str, object]  # by field name: text as typed, except for flags (bool), ``none`` (None) and lists
    preset: str | None  # the one asked for, whether or not it exists
    resume: bool  # whether ``--resume`` was given
    problems: tuple[str, ...]  # one sentence for each option that cannot be read
    unreadable: frozenset[str]  # the fields among these options


def option_name(field_name: str) -> str:
    """Return the command line's spelling of a field: ``BATCH_SIZE`` is ``--batch-size``."""
    return "--" + field_name.lower().replace("_", "-")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the nearest known word, or nothing when none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def read_command_line(
    config_class: type[BaseSettings], preset_names: Sequence[str], argv: Sequence[str], program: str
) -> CommandLine:
    """Read ``argv`` (without the program's name) against the fields of ``config_class``.

    Values are not checked here. ``--help`` prints every option and ends the program with exit code 0.
    """
    parser = _build_parser(config_class, preset_names, program, for_help=not {"-h", "--help"}.isdisjoint(argv))
    try:
        namespace, rest = parser.parse_known_args(argv)
    except _UnreadableArgumentError as error:
        return CommandLine({}, None, False, (str(error),), frozenset())
    problems = _describe_unknown(rest, parser)
    values: dict[str, object] = {}
    unreadable = set()
    for name, raw in vars(namespace).items():
        try:
            values[name] = raw if raw is None or isinstance(raw, bool) else _parse(name, raw, config_class)
        except ValueError as error:
            unreadable.add(name)
            problems.append(f"{option_name(name)} {error}")
    preset, resume = values.pop("preset", None), values.pop("resume") is True
    return CommandLine(values, None if preset is None else str(preset), resume, tuple(problems), frozenset(unreadable))


class _UnreadableArgumentError(Exception):
    """What argparse could not make sense of."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UnreadableArgumentError(message)


def _build_parser(
    config_class: type[BaseSettings], preset_names: Sequence[str], program: str, *, for_help: bool
) -> _Parser:
    """Return a parser with every field as an option, in groups named by the comment headings of the class."""
    usage = f"{program} [--preset NAME] [--resume] [--CONSTANT VALUE ...]"
    parser = _Parser(prog=program, usage=usage, description=inspect.getdoc(config_class), allow_abbrev=False)
    # argparse would stop at the first option without a value, and all mistakes are reported together. In the help an
    # optional value would look odd.
    value_may_lack: dict[str, Any] = {} if for_help else {"nargs": "?", "const": _NO_VALUE}
    presets = f"named block of settings: {', '.join(preset_names)}"
    parser.add_argument("--preset", metavar="NAME", help=presets, **value_may_lack)
    parser.add_argument("--resume", action="store_true", help="go on with the run of --experiment-name, or the newest")
    headings = _headings(config_class)
    groups = {heading: parser.add_argument_group(heading) for heading in dict.fromkeys(headings.values())}

    def add_argument(_: object, *names: str, **options: Any) -> None:
        field = config_class.model_fields[options["dest"]]
        if options.pop("action", None) is argparse.BooleanOptionalAction:
            options["action"] = argparse.BooleanOptionalAction
        elif _holds_texts(field):
            options |= {"metavar": "TEXT", "nargs": "+" if for_help else "*"}
        else:
            options |= value_may_lack
            if typing.get_origin(field.annotation) is tuple:
                options["metavar"] = "VALUE,VALUE,..."
        options["help"] += _describe_range(field)
        groups[headings[options["dest"]]].add_argument(*(each.lower() for each in names), **options)

    CliSettingsSource(config_class, root_parser=parser, add_argument_method=add_argument, cli_parse_none_str="none")
    return parser


def _holds_texts(field: FieldInfo) -> bool:
    """Return whether a field holds several texts or paths, which may have commas in them, and not several numbers."""
    if typing.get_origin(field.annotation) is not tuple:
        return False
    item = typing.get_args(field.annotation)[0]
    return (typing.get_args(item)[0] if typing.get_origin(item) is Annotated else item) in (str, Path)


def _headings(config_class: type[BaseSettings]) -> dict[str, str]:
    """Return the heading (a comment ``# --- Heading``) above each field in the source of ``config_class``."""
    found = dict.fromkeys(config_class.model_fields, "settings")
    heading = "settings"
    for line in inspect.getsource(config_class).splitlines():
        if match := _HEADING.match(line):
            heading = match["heading"]
        elif (match := _FIELD.match(line)) and match["name"] in found:
            found[match["name"]] = heading
    return found


def _describe_range(field: FieldInfo) -> str:
    """Return the bounds of a number as ``" [at least 1, at most 9]"``, or nothing."""
    bounds = [
        f"{_BOUNDS[type(constraint)]} {dataclasses.astuple(constraint)[0]:g}"
        for constraint in field.metadata
        if type(constraint) in _BOUNDS
    ]
    return f" [{', '.join(bounds)}]" if bounds else ""


def _describe_unknown(rest: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Return a sentence for each argument that is no option, except values that follow an unknown option."""
    known = [option for action in parser._actions for option in action.option_strings]
    problems, follows_unknown = [], False
    for argument in rest:
        if argument.startswith("-"):
            name = argument.split("=")[0]
            near = suggestion(name.lower().replace("_", "-"), known)
            problems.append(f"{name} is not an option{near or '; --help lists all'}")
        elif not follows_unknown:
            problems.append(f"{argument!r} belongs to no option: options begin with --, values with blanks need quotes")
        follows_unknown = argument.startswith("-") and "=" not in argument
    return problems


def _parse(name: str, raw: object, config_class: type[BaseSettings]) -> object:
    """Return the value of an option as text, None, a list, or one of a fixed set of choices.

    Raises:
        ValueError: the value is missing or a list is not well formed. The message continues the option's name.
    """
    if raw is _NO_VALUE or raw == []:
        raise ValueError("needs a value")
    if isinstance(raw, list):
        only = raw[0].strip() if len(raw) == 1 else None
        return [] if only == "" else _parse_json_list(only) if only and only.startswith("[") else raw
    text = str(raw)
    field = config_class.model_fields.get(name)
    annotation = None if field is None else field.annotation
    if typing.get_origin(annotation) is tuple:
        return _parse_list(text)
    if not text.strip():
        raise ValueError("needs a value, not an empty text")
    if type(None) in typing.get_args(annotation) and text.lower() == "none":
        return None
    if typing.get_origin(annotation) is Literal:
        return {str(choice): choice for choice in typing.get_args(annotation)}.get(text, text)
    return text


def _parse_list(text: str) -> list[object]:
    """Read the numbers ``1,2,3`` or ``[1, 2, 3]``."""
    if text.lstrip().startswith("["):
        return _parse_json_list(text)
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _parse_json_list(text: str) -> list[object]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not a JSON list: {text} ({error})") from error
    return list(values)
