"""06_Diffusion: errors in terms of noise and clip, signal-to-noise ratio, and the loss at every timestep over time."""

import numpy

from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, SCALARS, Category, CategoryContext, Tag
from logging_system.pictures.charts import heat_map
from logging_system.records import StepRecord
from logging_system.statistics.moments import BinSums, ClipBuffer, DeviceMeans, TimestepBins
from logging_system.statistics.tensors import Histogram

MAXIMUM_COLUMNS = 120
CLIPS_A_BIN = 4  # in a finished column, on average: fewer would leave holes where by chance no clip was drawn


class LossHistory:
    """Columns of sums and counts, each of as many log points as it takes to fill it; too many are joined in pairs."""

    def __init__(self, first_step: int) -> None:
        self._clips_a_bin = CLIPS_A_BIN
        self._edges = [float(first_step)]  # column i covers the steps after edges[i], up to edges[i + 1]
        self._columns: list[BinSums] = []

    def __len__(self) -> int:
        return len(self._columns)

    def append(self, step: int, sums: BinSums) -> None:
        """Add what was accumulated up to and including `step`. Nothing is added when no step has passed."""
        if step <= self._edges[-1]:
            return
        if self._columns and self._columns[-1].counts.sum() < self._clips_a_bin * len(sums.counts):
            self._edges[-1] = float(step)
            self._columns[-1] = self._columns[-1] + sums
            return
        self._edges.append(float(step))
        self._columns.append(sums)
        if len(self._columns) > MAXIMUM_COLUMNS:
            self._join_pairs()

    def _join_pairs(self) -> None:
        last_edge, odd = self._edges[-1:], len(self._columns) % 2
        pairs = zip(self._columns[::2], self._columns[1::2], strict=False)
        self._columns = [first + second for first, second in pairs] + (self._columns[-1:] if odd else [])
        self._edges = self._edges[::2] + (last_edge if odd else [])
        self._clips_a_bin *= 2

    def step_edges(self) -> numpy.ndarray:
        """[columns + 1] float64, strictly increasing."""
        return numpy.array(self._edges)

    def means(self) -> numpy.ndarray:
        """[bins, columns] float64, from little noise to much and from old to new; NaN where there was no clip."""
        return numpy.stack([column.means for column in self._columns], axis=1)


HEAT_MAP_BINS = 20
ALL_TERMINAL = "every clip since the last point was pure noise (signal-to-noise ratio 0)"

TAGS = {
    "Noise_Prediction_MSE": Tag(
        "Squared error of the predicted noise, whatever the network predicts, converted; mean over clips since the "
        "last point. Clips of pure noise (signal-to-noise ratio 0) are left out. 1 is what the answer 0 would score.",
        absent_when=ALL_TERMINAL,
    ),
    "Noise_Prediction_MAE": Tag("Absolute error of the predicted noise, mean over the same clips.", ALL_TERMINAL),
    "Signal_to_Noise_Ratio": Tag(
        "Signal-to-noise ratio of the noisy clips in dB: 10 log10 of alphas_cumprod times the clip's mean square over "
        "1 - alphas_cumprod; mean over clips since the last point, pure noise left out. It describes data and "
        "timesteps, not the model.",
        absent_when=ALL_TERMINAL,
    ),
    "Beta": Tag("Noise variance beta of the timesteps drawn since the last point, mean over all clips."),
    "Alphas_Cumprod": Tag(
        "Share of signal variance left (cumulative product of 1 - beta) at the timesteps drawn since the last point, "
        "mean over all clips. A steady value means that timesteps are drawn evenly."
    ),
    "X0_MSE": Tag(
        "Squared error of the estimated clean clip, range -1 to 1, mean over all clips since the last point. Noisy "
        "timesteps dominate it."
    ),
    "Timestep_Distribution": Tag(
        "Histogram of the timesteps drawn since its last point. It should be flat when timesteps are drawn evenly."
    ),
    "Loss_By_Timestep_Over_Time": Tag(
        "Mean unweighted squared error by timestep (upwards, more noise is higher) and optimizer step (to the right) "
        "since this launch began. Grey means that no clip was drawn there."
    ),
}


class Diffusion(Category):
    """Clips at which the signal-to-noise ratio is 0 count in everything that is defined there, and in nothing else."""

    name = "06_Diffusion"
    cadence = f"{SCALARS}; histogram and picture {DIAGNOSTICS}"
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        timesteps = self.config.NUM_TRAIN_TIMESTEPS
        self._clips = ClipBuffer()
        self._means = DeviceMeans()
        self._loss_by_timestep = TimestepBins(HEAT_MAP_BINS, timesteps)
        self._timestep_counts = TimestepBins(min(self.config.HISTOGRAM_BINS, timesteps), timesteps)
        self._history: LossHistory | None = None

    def on_step(self, record: StepRecord, due: Due) -> None:
        self._history = LossHistory(record.step - 1) if self._history is None else self._history
        self._clips.add(record.samples)
        if due.scalars or due.diagnostics or self._clips.is_full:
            self._fold()
        if due.scalars:
            self.scalars({key: mean.mean for key, mean in self._means.collect().items()}, record.step)
        if due.scalars or due.diagnostics:
            self._history.append(record.step, self._loss_by_timestep.collect())
        if due.diagnostics:
            self._write_distribution(record.step)
            self._draw(record.step, self._history)

    def _fold(self) -> None:
        clips = self._clips.take()
        if clips is None:
            return
        self._means.add({"Beta": clips.beta, "Alphas_Cumprod": clips.alphas_cumprod, "X0_MSE": clips.x0_mse})
        has_signal = ~clips.is_terminal
        self._means.add_masked("Noise_Prediction_MSE", clips.noise_mse, has_signal)
        self._means.add_masked("Noise_Prediction_MAE", clips.noise_mae, has_signal)
        self._means.add_masked("Signal_to_Noise_Ratio", clips.snr_decibel, has_signal)
        self._loss_by_timestep.add(clips.timestep, clips.unweighted_mse)
        self._timestep_counts.add(clips.timestep, clips.timestep.float())

    def _write_distribution(self, step: int) -> None:
        num_timesteps = self.config.NUM_TRAIN_TIMESTEPS
        drawn = self._timestep_counts.collect()
        bins, counts = self._timestep_counts.bins, drawn.counts.tolist()
        # Bins cover all timesteps, not only those that were drawn, so that histograms of different steps line up.
        # The sum of squares, which TensorBoard does not draw, takes each bin's mean for its timesteps.
        histogram = Histogram(
            minimum=0.0,
            maximum=float(num_timesteps),
            count=sum(counts),
            sum=float(drawn.sums.sum()),
            sum_of_squares=sum(c * m * m for c, m in zip(counts, drawn.means.tolist(), strict=True) if c),
            bucket_limits=[num_timesteps * (number + 1) / bins for number in range(bins)],
            bucket_counts=counts,
        )
        self.write(self.writer.histogram, "Timestep_Distribution", histogram, step)

    def _draw(self, step: int, history: LossHistory) -> None:
        if not len(history):
            return
        picture = heat_map(
            history.means(),
            column_edges=history.step_edges(),
            y_range=(0.0, float(self.config.NUM_TRAIN_TIMESTEPS)),
            title="Loss by timestep over time",
            x_label="optimizer step",
            y_label="timestep",
            value_label="MSE",
        )
        self.write(self.writer.image, "Loss_By_Timestep_Over_Time", picture, step)
