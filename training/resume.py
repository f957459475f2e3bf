"""What of a checkpoint's config holds when a run is resumed, and what today's config says."""

from dataclasses import dataclass

from common.errors import UserError
from common.settings import LoadedSettings, config_as_json, config_from_json
from config import ARCHITECTURE_FIELDS, SPLIT_FIELDS, Config
from training.checkpoint import Checkpoint

KEPT_FIELDS = ARCHITECTURE_FIELDS | SPLIT_FIELDS


@dataclass(frozen=True)
class ResumedConfig:
    """The config to train with, and one sentence for every constant that differs from the checkpoint's."""

    config: Config
    differences: tuple[str, ...]

    def with_differences(self, further: tuple[str, ...]) -> "ResumedConfig":
        """Return the same with further sentences."""
        return ResumedConfig(self.config, (*self.differences, *further))


def config_for_resume(loaded: LoadedSettings[Config], checkpoint: Checkpoint | None) -> ResumedConfig:
    """Merge: architecture and what is held out come from the checkpoint, everything else from today.

    Raises:
        UserError: constants that come from the checkpoint were set to other values: on the command line, by the preset
            asked for, or in config.py since the checkpoint was written. All of them are listed.
    """
    if checkpoint is None:
        return ResumedConfig(loaded.config, ())
    today = config_as_json(loaded.config)
    then = checkpoint.state.config
    changed = [name for name in today if name in then and today[name] != then[name]]
    edited = {name for name in today if loaded.file_values[name] != checkpoint.state.config_file.get(name)}
    set_now = {**dict.fromkeys(edited, "config.py"), **dict.fromkeys(loaded.explicitly_set, "command line or preset")}
    conflicts = [name for name in changed if name in KEPT_FIELDS and name in set_now]
    if conflicts:
        lines = [
            f"{name} is {today[name]!r} now ({set_now[name]}) and {then[name]!r} in the checkpoint"
            for name in conflicts
        ]
        raise UserError(
            "cannot resume with another architecture or another split into training and held-out data:\n  "
            + "\n  ".join(lines)
            + f"\nLeave these out, or set them back, to go on with {checkpoint.folder}; or start a new run with "
            "another --experiment-name."
        )
    kept = {name: then[name] for name in changed if name in KEPT_FIELDS}
    differences = [
        f"{name}: {then[name]!r} in the checkpoint, {today[name]!r} now; "
        + ("the checkpoint's is kept" if name in kept else "today's is used")
        for name in changed
    ]
    return ResumedConfig(config_from_json(Config, today | kept), tuple(differences))


def config_of_checkpoint(checkpoint: Checkpoint) -> Config:
    """Return the config that a checkpoint was trained with, for generation.

    Constants that are newer than the checkpoint get today's default, those that no longer exist are left out.

    Raises:
        UserError: an architecture constant is missing, or a value is not valid.
    """
    saved = checkpoint.state.config
    missing = sorted(ARCHITECTURE_FIELDS - saved.keys())
    if missing:
        raise UserError(
            f"{checkpoint.folder / 'state.json'} lacks {', '.join(missing)}: another version of the program made it"
        )
    defaults = config_as_json(Config())
    return config_from_json(Config, {name: saved.get(name, default) for name, default in defaults.items()})
