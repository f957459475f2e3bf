"""15_Configuration: what was run, where, what changed on resume, and the run doctor's verdict."""

from collections.abc import Iterable, Mapping

from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, START, Category, CategoryContext, Tag
from logging_system.doctor.diagnosis import as_markdown, diagnose
from logging_system.files.summaries import escape, table
from logging_system.records import StepRecord

TAGS = {
    "Config": Tag("Every constant of this launch, after presets and the command line."),
    "Environment": Tag("Versions, device, source revision and command line of this launch."),
    "Data": Tag(
        "What is trained on and held out, and what was left out, merged, cut or changed of it, with the constants that "
        "decide it. `python -m data inspect` tells more."
    ),
    "Captions_Unread_Percent": Tag(
        "Captions of which the text encoder knows no character, in percent of all. Should be 0: to the model "
        "they are all the same."
    ),
    "Captions_Alike_Percent": Tag(
        "Captions that differ from another one only in what the text encoder does not read, because of "
        "MAX_CAPTION_LENGTH or unknown characters, in percent of all. Should be 0."
    ),
    "Resume_Differences": Tag(
        "Constants that differ from those the checkpoint was made with; today's are in force.",
        absent_when="the run was not resumed, or nothing differs",
    ),
    "Step_Plan": Tag(
        "How many steps fit into MAX_MINUTES. The learning rate falls until the last of them.",
        absent_when="MAX_STEPS or NUM_EPOCHS end the run sooner, or the schedule needs no end",
    ),
    "Run_Doctor": Tag(
        "What is wrong with the run so far, in plain language: each finding with the tags it rests on and what to do, "
        "then what is healthy and what cannot be judged yet. `python -m logging_system.doctor` prints the same.",
        absent_when="the launch did no step",
    ),
}

# Their final values are shown next to the settings in the HParams tab.
RESULT_TAGS = (
    "01_Training/Validation_Loss",
    "02_Loss_Components/Validation/Text_Gap_Shuffled",
    "12_Generated_Samples/Text_Sensitivity",
    "12_Generated_Samples/Motion_Energy_Ratio",
    "05_Performance/Samples_Per_Second",
    "01_Training/Loss",
    "01_Training/Loss_EMA",
    "03_Epoch_Summary/Best_Validation_Loss",
    "06_Diffusion/Noise_Prediction_MSE",
    "07_Noise_Analysis/Noise_Correlation",
)

# Constants that runs are compared by: of some ninety, the HParams tab shows five until it is told otherwise.
PROMINENT_CONSTANTS = ("LEARNING_RATE", "BATCH_SIZE", "MODEL_CHANNELS", "MAX_STEPS", "SEED")

# Curves that are read together, for the Custom Scalars tab.
LAYOUT: Mapping[str, Mapping[str, list[str]]] = {
    "Is it learning": {
        "Training and validation loss": ["01_Training/Loss", "01_Training/Loss_EMA", "01_Training/Validation_Loss"],
        "Against doing nothing": ["02_Loss_Components/Unweighted_MSE", "02_Loss_Components/Predict_Zero_Baseline"],
        "Gradient norm before and after clipping": ["01_Training/Gradient_Norm", "01_Training/Gradient_Norm_Clipped"],
        "Noise prediction": ["06_Diffusion/Noise_Prediction_MSE", "06_Diffusion/Noise_Prediction_MAE"],
    },
    "Is the text used": {
        "With and without captions": ["02_Loss_Components/Captioned", "02_Loss_Components/Uncaptioned"],
        "Validation: right, shuffled, no caption": [
            "02_Loss_Components/Validation/Loss",
            "02_Loss_Components/Validation/Loss_Shuffled",
            "02_Loss_Components/Validation/Loss_Null",
            "02_Loss_Components/Validation/Predict_Zero_Baseline",
        ],
        "Text gap": [
            "02_Loss_Components/Validation/Text_Gap_Shuffled",
            "02_Loss_Components/Validation/Text_Gap_Shuffled_Lower_Bound",
            "02_Loss_Components/Validation/Text_Gap_Shuffled_Upper_Bound",
            "02_Loss_Components/Validation/Text_Gap_Null",
            "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled",
        ],
    },
    "By timestep": {
        "Loss": [f"02_Loss_Components/Timestep_Bin_{number}" for number in range(1, 9)],
        "Validation loss": [f"02_Loss_Components/Validation/Timestep_Bin_{number}" for number in range(1, 9)],
        "Noise correlation": [f"07_Noise_Analysis/Noise_Correlation_Bin_{number}" for number in range(1, 9)],
    },
    "Speed and memory": {
        "Where the time goes": ["05_Performance/Data_Wait_Percent", "05_Performance/Logging_Overhead_Percent"],
        "Of several processes": ["05_Performance/Rank_Seconds_Fastest", "05_Performance/Rank_Seconds_Slowest"],
        "Memory": ["14_System/RAM_Used_GB", "14_System/Process_RSS_GB", "14_System/Loader_RSS_GB"],
        "GPU memory": [
            "14_System/GPU_Memory_Allocated_GB",
            "14_System/GPU_Memory_Reserved_GB",
            "14_System/GPU_Memory_Peak_GB",
        ],
    },
}


class Configuration(Category):
    """All but the verdict is written before the first step, so that a run explains itself while it is young."""

    name = "15_Configuration"
    cadence = f"{START}; the run doctor {DIAGNOSTICS}, and the end of every launch"
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._last_step = self._judged_step = 0
        self._is_finished = self._has_plan = False

    def on_start(self) -> None:
        run = self.view.run
        texts = {
            "Config": table(("constant", "value"), ((name, str(value)) for name, value in run.config.items())),
            "Environment": table(("item", "value"), run.environment.items()),
            "Data": _listed(run.data),
        }
        if run.resume_differences:
            texts["Resume_Differences"] = _listed(run.resume_differences)
        for key, text in texts.items():
            self.write(self.writer.text, key, text, run.first_step)
        for key, value in run.data_measures.items():
            self.write(self.writer.scalar, key, value, run.first_step)
        self.writer.hparams_start(hyperparameters(run.config), list(RESULT_TAGS), PROMINENT_CONSTANTS)
        self.writer.custom_scalars_layout(LAYOUT)

    def on_step(self, record: StepRecord, due: Due) -> None:
        self._last_step = record.step
        self._is_finished = record.is_last
        plan = self.view.plan()
        if plan is not None and not self._has_plan:
            self._has_plan = True
            self.write(self.writer.text, "Step_Plan", escape(plan), record.step)
        if due.diagnostics and not record.is_last:
            self._write_verdict()

    def on_end(self) -> None:
        # The last validation and epoch come after the last step. A tag gets one point a step, so a step that a signal
        # made the last one only after its diagnostics keeps what they said.
        if self._last_step > self._judged_step:
            self._write_verdict()
        if self._is_finished:
            self.writer.hparams_end()

    def _write_verdict(self) -> None:
        self._judged_step = self._last_step
        verdict = as_markdown(diagnose(self.writer.history, self.view.run.config))
        self.write(self.writer.text, "Run_Doctor", verdict, self._last_step)


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def hyperparameters(config: Mapping[str, object]) -> dict[str, bool | float | str]:
    """Return the constants in the types that the HParams tab knows: lists, None and the like become text."""
    return {
        name: value if isinstance(value, bool | str) else float(value) if isinstance(value, int | float) else str(value)
        for name, value in config.items()
    }
