"""What a run says on the console before it starts."""

from collections import Counter

from common.settings import LoadedSettings
from config import Config
from data.records import ClipSource, DataSplits
from models.text_encoder import CharacterTokenizer
from training.device import ComputeDevice
from training.resume import ResumedConfig
from training.run_folder import RunFolder


def announce(
    loaded: LoadedSettings[Config],
    config: Config,
    splits: DataSplits,
    tokenizer: CharacterTokenizer,
    folder: RunFolder,
    compute: ComputeDevice,
    resumed: ResumedConfig,
) -> None:
    """Say where the run lives, what it trains on, what a preset or a resume changed, and how to watch it."""
    print(f"Run: {folder.path}")
    print(f"Data: {splits.description}")
    _announce_dropped_characters(splits.training, tokenizer)
    print(f"Device: {compute.device.type}")
    if compute.device.type != "cpu" and not loaded.preset_asked_for:
        print("This machine has a GPU: --preset base trains a larger model that is meant for one.")
    for name, (old, new) in loaded.preset_changes.items():
        print(f"Preset {loaded.preset}: {name} = {new!r} (config.py says {old!r})")
    for difference in resumed.differences:
        print(f"Differs from the checkpoint: {difference}")
    if config.ENABLE_VIDEO_LOGGING or config.ENABLE_NOISE_VISUALIZATION:
        print(f"Sample videos are made every {config.SAMPLE_EVERY_STEPS} steps and at the end.")
    print("The curves of 03_Epoch_Summary get their first point when the first epoch, or the run, ends.")
    print(f"Watch it: python launch_tensorboard.py --logdir {config.LOG_DIR}", flush=True)


def _announce_dropped_characters(training: ClipSource, tokenizer: CharacterTokenizer) -> None:
    """Say which characters of the captions the model will not see. Looks at the captions of the first epoch."""
    dropped = Counter("".join(tokenizer.encode(training.row(0, index).caption)[1] for index in range(len(training))))
    if dropped:
        listed = ", ".join(f"{character!r} ({count} times)" for character, count in dropped.most_common(20))
        print(f"Captions: the character encoder has no symbol for, and leaves out: {listed}")
