"""Every constant a person tunes. Edit the values here; the command line overrides them for one run.

Each constant is an option by its kebab-case name: LOG_EVERY_STEPS is ``--log-every-steps``, a switch is
``--enable-...`` or ``--no-enable-...``, None is written ``none``, and several numbers are separated by commas
(``--model-channels 64,128``). Several texts are several arguments (``--sample-prompts "Hello, you" Bye``) or one JSON
list (``--sample-prompts '["Hello, you", "Bye"]'``).
Command line wins over the preset asked for (``--preset``), the preset over this class.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.field_types import (
    FRAME_STEP,
    LARGEST_GUIDANCE_SCALE,
    LARGEST_SIDE,
    LONGEST_CAPTION,
    MOST_FRAMES,
    MOST_LETTERS,
    MOST_SIGNS,
    AbsoluteFolder,
    Folder,
    FolderName,
    Fraction,
    ImageSize,
    Interval,
    LanguageCodes,
    NonBlankText,
    check_distinct,
)
from common.settings import Settings
from config_checks import CROSS_FIELD_CHECKS, side_divisor

Channels = Annotated[int, Field(ge=1, le=8192)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
PublishedFormat = Literal["how2sign", "phoenix", "wlasl", "msasl", "pose_lexicon", "webdataset"]
DataFormatName = Literal["auto", "folder", "words", "manifest", PublishedFormat]


class Config(Settings):
    """Train a text-to-sign-language video diffusion model."""

    cross_field_checks = CROSS_FIELD_CHECKS

    # --- Run
    EXPERIMENT_NAME: FolderName = "auto"
    """Name of the run's folder in LOG_DIR; "auto" makes a fresh one."""
    LOG_DIR: Folder = Path("logs")
    """Folder that holds the runs."""
    CACHE_DIR: Folder = Path("cache")
    """Folder for rendered and decoded clips; runs share it and it may be deleted at any time."""
    CACHE_LIMIT_GB: float = Field(4.0, gt=0, le=1e6)
    """Size of the cache in gigabytes; the oldest clips make room."""
    SEED: int = Field(0, ge=0, le=2**63 - 1)
    """Seed of everything random: the same seed and settings give the same run."""
    DEVICE: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; "auto" takes CUDA, then MPS, then the CPU."""
    MIXED_PRECISION: Literal["auto", "off", "bfloat16", "float16"] = "auto"
    """Number format of the heavy operations; "auto" takes bfloat16 on CUDA and on x86 CPUs that compute in it, and
    float16, which only CUDA has here, on older devices of it."""
    DETERMINISTIC: bool = False
    """Whether a GPU must use operators that give the same bits each time, as a CPU's do; slower, not all exist."""
    ACTIVATION_CHECKPOINTING: bool = False
    """Whether the backward pass computes activations again, not keeping them: less memory, a quarter more time."""
    COMPILE_MODEL: bool = False
    """Whether training steps run through torch.compile, which takes minutes at the start; not with "fsdp"."""
    CUDNN_ATTENTION: bool = False
    """Whether CUDA may take cuDNN's attention, of which gradients that are NaN were reported (pytorch#196678)."""

    # --- Stopping: the first of these that is set and reached ends the run
    NUM_EPOCHS: int | None = Field(None, ge=1, le=10**9)
    """Epochs to train; None for no limit."""
    MAX_STEPS: int | None = Field(2000, ge=1, le=10**9)
    """Optimizer steps to train; None for no limit."""
    MAX_MINUTES: float | None = Field(12.0, gt=0, le=1e7)
    """Minutes to train, of each launch; None for no limit. Cosine and polynomial rates are planned to fall in them."""

    # --- Data
    DATA_ROOT: Folder | None = None
    """Your clips, a folder or a list of them (docs/data.md); None for the embedded finger-spelling."""
    DATA_FORMAT: DataFormatName = "auto"
    """Layout of DATA_ROOT; "auto" recognises it."""
    DATA_ALLOW: tuple[AbsoluteFolder, ...] = ()
    """Folders outside of DATA_ROOT that paths and links in it may lead to, such as "/mnt/clips"."""
    SIGNER_FROM_FILE_NAME: bool = False
    """Whether the files of a folder begin with the signer's name and an underscore: alice_hello.mp4."""
    CLIP_FIT: Literal["crop", "pad", "signer"] = "crop"
    """How clips of DATA_ROOT get the shape of IMAGE_SIZE: "crop" takes the centre, "pad" all, with black borders, and
    "signer" the region in which the clip moves, so that hands fill it."""
    COMPOSE_SIGNS: int = Field(1, ge=1, le=MOST_SIGNS)
    """Signs of the longest sentences that are joined from clips of DATA_ROOT, where each shows one sign; 1 is off."""
    SPLIT_BY: Literal["auto", "signer", "caption"] = "auto"
    """What is held out of DATA_ROOT: other signers or other captions; "auto" takes the data set's own split first."""
    SIGNED_LANGUAGE: LanguageCodes = ("ase",)
    """Codes of the finger-spelling alphabets, such as ase for American Sign Language, or "all"; with several, a text
    begins with the code of its language: "gsg HALLO"."""
    MAX_WORD_LETTERS: int = Field(5, ge=1, le=MOST_LETTERS)
    """Letters in the longest finger-spelled word of the training; longer ones can be asked for."""
    EPOCH_SIZE: int = Field(2048, ge=1, le=10**9)
    """Finger-spelled words, or joined sentences, that count as one epoch."""
    HELD_OUT_WORD_FRACTION: float = Field(0.2, ge=0, le=0.9)
    """Share of the finger-spelled words, or joined sentences, that is never trained on."""
    HELD_OUT_BIGRAM_FRACTION: float = Field(0.1, ge=0, le=0.9)
    """Share of the pairs of neighbouring letters, or joined signs, that is never trained on."""
    VALIDATION_FRACTION: float = Field(0.1, gt=0, le=0.9)
    """Share of DATA_ROOT that is held out for validation, where the data set does not say."""
    VALIDATION_CLIPS: int = Field(16, ge=2, le=100_000)
    """Clips that measure the validation loss, always the same ones."""
    CLIP_TIMING: Literal["natural", "stretched"] = "natural"
    """"natural", clips keep their duration and have as many frames as that takes; "stretched", all have MAX_FRAMES."""
    FRAMES_PER_SECOND: float = Field(12.0, ge=0.1, le=60)
    """Frames of a second of signing, in training and in the videos that are written."""
    MIN_FRAMES: int = Field(4, ge=FRAME_STEP, le=MOST_FRAMES, multiple_of=FRAME_STEP)
    """Frames of the shortest clips; what lasts less is shown slower."""
    MAX_FRAMES: int = Field(32, ge=FRAME_STEP, le=MOST_FRAMES, multiple_of=FRAME_STEP)
    """Frames of the longest clips; what lasts longer is shown faster, and counted."""
    IMAGE_SIZE: ImageSize = Field((64, 64), validate_default=True)
    """Height and width of a frame in pixels, 16 to 2048 and even; one number is a square."""
    NUM_WORKERS: int = Field(1, ge=0, le=256)
    """Processes that prepare clips; 0 prepares them in the training process."""

    # --- Batch
    BATCH_SIZE: int = Field(2, ge=1, le=65536)
    """Clips of MAX_FRAMES frames that pass through the model at once, in each process where several train together; of
    shorter clips, as many more as have no more frames."""
    GRADIENT_ACCUMULATION_STEPS: int = Field(1, ge=1, le=65536)
    """Batches whose gradients make one optimizer step."""

    # --- Several processes, started by torchrun (docs/scaling.md)
    PARALLELISM: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the model: "ddp", each has all of it; "fsdp", each has a part, which saves memory."""

    # --- Model
    MODEL_CHANNELS: tuple[Channels, ...] = Field((64, 96, 128), min_length=1, max_length=8)
    """Channels of each level, from the finest to the coarsest."""
    BLOCKS_PER_LEVEL: int = Field(1, ge=1, le=16)
    """Residual blocks of each level on the way down, and again on the way up."""
    PATCH_SIZE: Literal[1, 2, 4] = 4
    """Pixels a side that the first layer folds into channels; the finest level is IMAGE_SIZE / PATCH_SIZE large."""
    SPATIAL_ATTENTION_SIZES: Annotated[tuple[Side, ...], AfterValidator(check_distinct)] = Field((8,), min_length=1)
    """Side lengths, in pixels of the feature map, of the levels that attend over space and to the text; where it is not
    square, of the shorter side."""
    ATTENTION_HEAD_CHANNELS: int = Field(32, ge=1, le=1024)
    """Channels of one attention head; every level has temporal attention."""
    GROUP_NORM_GROUPS: int = Field(8, ge=1, le=1024)
    """Groups of every group normalisation."""
    TEXT_ENCODER: NonBlankText = "characters"
    """"characters", trained with the rest; or a pretrained, frozen text encoder: a folder or a Hugging Face name."""
    TEXT_CHANNELS: int = Field(128, ge=1, le=8192)
    """Width of the text encoder."""
    TEXT_LAYERS: int = Field(2, ge=1, le=48)
    """Transformer layers of the text encoder."""
    TEXT_HEADS: int = Field(4, ge=1, le=128)
    """Attention heads of the text encoder."""
    MAX_CAPTION_LENGTH: int = Field(512, ge=1, le=LONGEST_CAPTION)
    """Characters of the longest caption; the rest is cut off."""

    # --- Diffusion
    NUM_TRAIN_TIMESTEPS: int = Field(1000, ge=10, le=100_000)
    """Steps from a clean clip to noise."""
    NOISE_SCHEDULE: Literal["linear", "cosine", "sigmoid", "quadratic"] = "cosine"
    """How the noise grows over the timesteps."""
    NOISE_SCHEDULE_SHIFT: float = Field(3.0, ge=0.01, le=100)
    """Divides every signal-to-noise ratio by its square: above 1, more training goes to noisy clips; 1 is no shift."""
    PREDICTION_TYPE: Literal["v_prediction", "epsilon", "sample"] = "sample"
    """What the model predicts: velocity, the noise, or the clean clip."""
    ZERO_TERMINAL_SNR: bool = True
    """Whether the last timestep is pure noise, as it is when sampling starts."""
    LOSS_WEIGHTING: Literal["uniform", "min_snr", "snr_plus_one"] = "snr_plus_one"
    """How the loss weighs the timesteps: the prediction's own error alike, or the clean clip's by its signal-to-noise
    ratio ("min_snr") or by 1 more ("snr_plus_one", which is the error of velocity)."""
    MIN_SNR_GAMMA: float = Field(10.0, gt=0, le=1e6)
    """Largest weight of a clean clip's error with "min_snr" and "snr_plus_one"."""
    MOTION_WEIGHT: float = Field(1.0, ge=0, le=100)
    """How much more an error counts where the clip moves as much as it does on average; 0 is not at all."""
    CAPTION_DROPOUT: Fraction = 0.1
    """Share of the training clips that are shown without a caption, which guidance needs."""

    # --- Optimizer
    LEARNING_RATE: float = Field(8e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    WEIGHT_DECAY: float = Field(0.01, ge=0, le=1)
    """Weight decay of AdamW."""
    ADAM_BETA_1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's mean of the gradients."""
    ADAM_BETA_2: float = Field(0.99, ge=0, lt=1)
    """Decay of AdamW's mean of the squared gradients."""
    GRADIENT_CLIP_NORM: float = Field(1.0, gt=0, le=1e9)
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    EMA_DECAY: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which make the samples; smaller during the first steps."""
    MAX_SKIPPED_STEPS_IN_A_ROW: int = Field(20, ge=1, le=10**9)
    """Steps in a row with a loss or gradient that is not finite after which the run gives up."""

    # --- Learning-rate schedule
    LR_SCHEDULE: Literal["constant", "cosine", "plateau", "warm_restarts", "exponential", "polynomial"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    LR_WARMUP_STEPS: int = Field(100, ge=0, le=10**9)
    """Steps over which the learning rate rises to LEARNING_RATE."""
    LR_FINAL_FRACTION: Fraction = 0.05
    """Share of LEARNING_RATE that a schedule falls to."""
    LR_RESTART_EVERY_STEPS: int = Field(1000, ge=1, le=10**9)
    """Steps between two restarts of "warm_restarts"."""
    LR_EXPONENTIAL_DECAY: float = Field(0.999, gt=0, le=1)
    """Factor of "exponential" at each step."""
    LR_POLYNOMIAL_POWER: float = Field(2.0, gt=0, le=100)
    """Power of "polynomial"; 1 is a straight line."""
    LR_PLATEAU_PATIENCE: int = Field(4, ge=0, le=10**9)
    """Validations without improvement that "plateau" waits for."""
    LR_PLATEAU_FACTOR: float = Field(0.5, gt=0, lt=1)
    """Factor by which "plateau" lowers the learning rate."""

    # --- Sampling
    SAMPLER: Literal["ddim", "ddpm", "dpm_solver++", "euler", "heun"] = "dpm_solver++"
    """Method that turns noise into a clip."""
    SAMPLING_STEPS: int = Field(10, ge=1, le=100_000)
    """Steps of the sampler."""
    GUIDANCE_SCALE: float = Field(2.0, ge=0, le=LARGEST_GUIDANCE_SCALE)
    """Weight of the caption (classifier-free guidance); 1 is no guidance."""
    GUIDANCE_RESCALE: Fraction = 0.0
    """How far guided predictions are brought back to their own contrast; 0 is not at all."""
    GUIDANCE_INTERVAL: Interval = (0.3, 1.0)
    """Part of the timesteps in which guidance acts: 0 is the clean clip, 1 is pure noise."""
    SAMPLE_PROMPTS: tuple[NonBlankText, ...] = ()
    """Captions that are sampled during training; empty for a choice from the data."""
    SAMPLE_EVERY_STEPS: int = Field(500, ge=1, le=10**9)
    """Steps between two rounds of generated and noise videos."""
    RECOGNISER_STEPS: int = Field(500, ge=0, le=1_000_000)
    """Training steps of the recogniser behind Letter_Error_Rate, and of the evaluation's other judge; each is trained
    once and cached. 0 leaves the rate out."""

    # --- Validation and checkpoints
    VALIDATE_EVERY_STEPS: int = Field(100, ge=1, le=10**9)
    """Steps between two measurements of the validation loss."""
    SAVE_EVERY_STEPS: int = Field(500, ge=1, le=10**9)
    """Steps between two checkpoints; the last step always has one."""
    SAVE_IN_BACKGROUND: bool = True
    """Whether training goes on while a checkpoint is written from a copy in memory; it waits where there is no room."""
    CHECKPOINT_LAYOUT: Literal["whole", "sharded"] = "whole"
    """"whole", the main process gathers and writes all; "sharded", each process of "fsdp" writes its part."""
    KEEP_CHECKPOINTS: int = Field(3, ge=1, le=10**6)
    """Newest checkpoints that are kept."""
    KEEP_BEST_CHECKPOINT: bool = True
    """Whether the checkpoint with the lowest validation loss is kept too, of those that fell on a validation."""
    KEEP_CHECKPOINT_EVERY_STEPS: int | None = Field(None, ge=1, le=10**9)
    """Checkpoints of multiples of this step are kept for good; None for none."""

    # --- Logging
    LOG_EVERY_EPOCHS: int = Field(1, ge=1, le=10**9)
    """Basic logging frequency: epochs between two epoch summaries."""
    DIAGNOSTIC_LOG_EVERY_STEPS: int = Field(500, ge=1, le=10**9)
    """Detailed diagnostics: steps between two rounds of per-layer and noise statistics."""
    TENSORBOARD_FLUSH_EVERY_STEPS: int = Field(500, ge=1, le=10**9)
    """Event-file flush frequency: steps after which new points are on disk at the latest."""
    ENABLE_GRADIENT_HISTOGRAMS: bool = True
    """Gradient distributions (11_Gradient_Stats)."""
    ENABLE_PARAMETER_TRACKING: bool = True
    """Parameter evolution (09_Parameter_Stats, 10_Parameter_Histograms)."""
    ENABLE_VIDEO_LOGGING: bool = True
    """Generated videos (12_Generated_Samples)."""
    ENABLE_NOISE_VISUALIZATION: bool = True
    """Noise prediction videos (13_Noise_Visualization)."""
    ENABLE_PERFORMANCE_PROFILING: bool = True
    """Performance metrics (05_Performance)."""

    # --- Logging details
    LOG_EVERY_STEPS: int = Field(10, ge=1, le=10**9)
    """Steps between two points of the training curves; a point averages the steps since the last one."""
    SYSTEM_SAMPLE_SECONDS: float = Field(10.0, ge=0.1, le=86_400)
    """Seconds between two readings of CPU, memory and GPU (14_System)."""
    PARAMETER_TRACKING_MAX_LAYERS: int = Field(64, ge=1, le=10_000)
    """Most layers with curves of their own; beyond it the deepest are merged into their parents."""
    HISTOGRAM_BINS: int = Field(64, ge=2, le=64)
    """Bins of each histogram."""

    @property
    def side_divisor(self) -> int:
        """What height and width are multiples of."""
        return side_divisor(self.PATCH_SIZE, self.MODEL_CHANNELS)

    @property
    def frames_at_once(self) -> int:
        """Most frames that pass through the model at once, in each process."""
        return self.BATCH_SIZE * self.MAX_FRAMES

    @property
    def frames_per_step(self) -> int:
        """Frames that one optimizer step takes at most, for each process."""
        return self.frames_at_once * self.GRADIENT_ACCUMULATION_STEPS


ARCHITECTURE_FIELDS = frozenset(
    {
        "CLIP_TIMING",
        "FRAMES_PER_SECOND",
        "MAX_FRAMES",
        "IMAGE_SIZE",
        "MODEL_CHANNELS",
        "BLOCKS_PER_LEVEL",
        "PATCH_SIZE",
        "SPATIAL_ATTENTION_SIZES",
        "ATTENTION_HEAD_CHANNELS",
        "GROUP_NORM_GROUPS",
        "TEXT_ENCODER",
        "TEXT_CHANNELS",
        "TEXT_LAYERS",
        "TEXT_HEADS",
        "NUM_TRAIN_TIMESTEPS",
        "NOISE_SCHEDULE",
        "NOISE_SCHEDULE_SHIFT",
        "PREDICTION_TYPE",
        "ZERO_TERMINAL_SNR",
    }
)
"""Constants without which weights mean nothing. A resumed run and a checkpoint keep their own."""

SPLIT_FIELDS = frozenset(
    {
        "SEED",
        "SIGNED_LANGUAGE",
        "MAX_WORD_LETTERS",
        "HELD_OUT_WORD_FRACTION",
        "HELD_OUT_BIGRAM_FRACTION",
        "VALIDATION_FRACTION",
        "SIGNER_FROM_FILE_NAME",
        "COMPOSE_SIGNS",
        "SPLIT_BY",
    }
)
"""Constants that decide what is held out. A resumed run keeps its own: what it has seen must not pass as unseen."""

_FOR_GPUS: dict[str, object] = {
    "COMPILE_MODEL": True,
    "MAX_STEPS": 30_000,
    "MAX_MINUTES": 60.0,
    "CACHE_LIMIT_GB": 50.0,
    "MAX_WORD_LETTERS": 8,
    "EPOCH_SIZE": 32_000,
    "VALIDATION_CLIPS": 64,
    "PATCH_SIZE": 2,
    "NUM_WORKERS": 6,
    "MODEL_CHANNELS": (128, 256, 384),
    "BLOCKS_PER_LEVEL": 2,
    "SPATIAL_ATTENTION_SIZES": (16, 8),
    "ATTENTION_HEAD_CHANNELS": 64,
    "GROUP_NORM_GROUPS": 32,
    "TEXT_CHANNELS": 256,
    "TEXT_LAYERS": 4,
    "LEARNING_RATE": 3e-4,
    "LR_WARMUP_STEPS": 500,
    "SAMPLING_STEPS": 30,
    "RECOGNISER_STEPS": 2000,
    "SAMPLE_EVERY_STEPS": 5000,
    "VALIDATE_EVERY_STEPS": 1000,
    "SAVE_EVERY_STEPS": 2500,
    "LOG_EVERY_STEPS": 50,
}

PRESETS: dict[str, dict[str, object]] = {
    # Minutes on two CPU cores: the class above as it is written.
    "tiny": {},
    # Ten minutes on one GPU, words of up to 4 letters at 64 x 64: base's network, and half its frames a step.
    "speedrun": {
        **_FOR_GPUS,
        "MAX_STEPS": 10_000,
        "MAX_MINUTES": 10.0,
        "MAX_WORD_LETTERS": 4,
        "BATCH_SIZE": 8,
        "LEARNING_RATE": 5e-4,
        "LR_WARMUP_STEPS": 200,
        "SAMPLE_EVERY_STEPS": 2000,
        "VALIDATE_EVERY_STEPS": 500,
        "SAVE_EVERY_STEPS": 2000,
        "LOG_EVERY_STEPS": 20,
    },
    # An hour on one GPU, words of up to 8 letters at 64 x 64.
    "base": {**_FOR_GPUS, "MAX_FRAMES": 64, "BATCH_SIZE": 8, "EMA_DECAY": 0.9995},
    # A GPU with 80 GB, words of up to 12 letters at 128 x 128. With less memory, set ACTIVATION_CHECKPOINTING
    # (docs/scaling.md).
    "large": {
        **_FOR_GPUS,
        "MAX_STEPS": 100_000,
        "MAX_MINUTES": None,
        "CACHE_LIMIT_GB": 200.0,
        "MAX_WORD_LETTERS": 12,
        "MAX_FRAMES": 96,
        "IMAGE_SIZE": (128, 128),
        "GRADIENT_ACCUMULATION_STEPS": 2,
        "MODEL_CHANNELS": (128, 256, 512, 768),
        "TEXT_CHANNELS": 512,
        "TEXT_LAYERS": 6,
        "TEXT_HEADS": 8,
        "LEARNING_RATE": 2e-4,
        "LR_WARMUP_STEPS": 1500,
        "EMA_DECAY": 0.9999,
    },
}
"""What ``--preset`` changes in the class above. A preset names only the constants that differ from it."""
