"""06_Diffusion: errors in terms of noise and clip, signal-to-noise ratio, and the loss at every timestep over time."""

import numpy

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.pictures.charts import heat_map
from logging_system.records import SampleStatistics, StepRecord, number_of_timesteps
from logging_system.statistics.histogram import Histogram
from logging_system.statistics.moments import BinSums, ClipBuffer, DeviceMoments, TimestepBins
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

MAXIMUM_COLUMNS = 120


CLIPS_A_BIN = 4  # in a finished column, on average: fewer would leave holes where by chance no clip was drawn


class LossHistory:
    """Columns of sums and counts, each of as many log points as it takes to fill it.

    When the columns are too many, neighbours are joined in pairs, and later columns are to hold twice as much.
    """

    def __init__(self, first_step: int) -> None:
        self._clips_a_bin = CLIPS_A_BIN
        self._edges = [float(first_step)]  # column i covers the steps after edges[i], up to edges[i + 1]
        self._columns: list[BinSums] = []

    @property
    def has_columns(self) -> bool:
        return bool(self._columns)

    def append(self, step: int, sums: BinSums) -> None:
        """Add what was accumulated up to and including `step`. Nothing is added when no step has passed."""
        if step <= self._edges[-1]:
            return
        if self._columns and self._columns[-1].counts.sum() < self._clips_a_bin * len(sums.counts):
            self._edges[-1] = float(step)
            self._columns[-1] = _join(self._columns[-1], sums)
            return
        self._edges.append(float(step))
        self._columns.append(sums)
        if len(self._columns) > MAXIMUM_COLUMNS:
            self._join_pairs()

    def _join_pairs(self) -> None:
        pairs = range(0, len(self._columns) - 1, 2)
        joined = [_join(self._columns[index], self._columns[index + 1]) for index in pairs]
        odd = self._columns[2 * len(joined) :]
        self._edges = [
            self._edges[0],
            *(self._edges[index + 2] for index in pairs),
            *([self._edges[-1]] if odd else []),
        ]
        self._columns = joined + odd
        self._clips_a_bin *= 2

    def step_edges(self) -> numpy.ndarray:
        """[columns + 1] float64, strictly increasing."""
        return numpy.array(self._edges)

    def means(self) -> numpy.ndarray:
        """[bins, columns] float64, from little noise to much and from old to new; NaN where there was no clip."""
        return numpy.stack([column.means for column in self._columns], axis=1)


def _join(first: BinSums, second: BinSums) -> BinSums:
    return BinSums(first.sums + second.sums, first.counts + second.counts)


HEAT_MAP_BINS = 20


ALL_TERMINAL = "every clip since the last point was pure noise (signal-to-noise ratio 0)"


TAGS = {
    "06_Diffusion/Noise_Prediction_MSE": Tag(
        "Squared error of the predicted noise, whatever the network predicts, converted; mean over clips since the "
        "last point. Clips of pure noise (signal-to-noise ratio 0) are left out. 1 is what the answer 0 would score.",
        absent_when=ALL_TERMINAL,
    ),
    "06_Diffusion/Noise_Prediction_MAE": Tag(
        "Absolute error of the predicted noise, mean over the same clips.", absent_when=ALL_TERMINAL
    ),
    "06_Diffusion/Signal_to_Noise_Ratio": Tag(
        "Signal-to-noise ratio of the noisy clips in dB: 10 log10 of alphas_cumprod times the clip's mean square over "
        "1 - alphas_cumprod; mean over clips since the last point, pure noise left out. It describes data and "
        "timesteps, not the model.",
        absent_when=ALL_TERMINAL,
    ),
    "06_Diffusion/Beta": Tag("Noise variance beta of the timesteps drawn since the last point, mean over all clips."),
    "06_Diffusion/Alphas_Cumprod": Tag(
        "Share of signal variance left (cumulative product of 1 - beta) at the timesteps drawn since the last point, "
        "mean over all clips. A steady value means that timesteps are drawn evenly."
    ),
    "06_Diffusion/X0_MSE": Tag(
        "Squared error of the estimated clean clip, range -1 to 1, mean over all clips since the last point. Noisy "
        "timesteps dominate it."
    ),
    "06_Diffusion/Timestep_Distribution": Tag(
        "Histogram of the timesteps drawn since its last point. It should be flat when timesteps are drawn evenly."
    ),
    "06_Diffusion/Loss_By_Timestep_Over_Time": Tag(
        "Mean unweighted squared error by timestep (upwards, more noise is higher) and optimizer step (to the right) "
        "since this launch began. Grey means that no clip was drawn there."
    ),
}


class Diffusion(Category):
    """Clips at which the signal-to-noise ratio is 0 count in everything that is defined there, and in nothing else."""

    name = "06_Diffusion"

    def __init__(self, histogram_bins: int) -> None:
        self._histogram_bins = histogram_bins
        self._clips = ClipBuffer()
        self._moments = DeviceMoments()
        self._loss_by_timestep: TimestepBins | None = None
        self._timestep_counts: TimestepBins | None = None
        self._history: LossHistory | None = None

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        self._history = self._history or LossHistory(first_step=record.step - 1)
        self._clips.add(record.samples)
        if due.scalars or due.diagnostics or self._clips.is_full:
            self._fold(number_of_timesteps(view.run))
        if due.scalars:
            means = {tag: moments.mean for tag, moments in self._moments.collect().items()}
            write_scalars(writer, TAGS, means, record.step)
        if (due.scalars or due.diagnostics) and self._loss_by_timestep is not None:
            self._history.append(record.step, self._loss_by_timestep.collect())
        if due.diagnostics:
            self._write_distribution(record.step, number_of_timesteps(view.run), writer)
            self._draw(record.step, number_of_timesteps(view.run), self._history, writer)

    def _fold(self, num_timesteps: int) -> None:
        clips = self._clips.take()
        if clips is None:
            return
        self._add_moments(clips)
        if self._loss_by_timestep is None or self._timestep_counts is None:
            self._loss_by_timestep = TimestepBins(HEAT_MAP_BINS, num_timesteps)
            self._timestep_counts = TimestepBins(min(self._histogram_bins, num_timesteps), num_timesteps)
        self._loss_by_timestep.add(clips.timestep, clips.unweighted_mse)
        self._timestep_counts.add(clips.timestep, clips.timestep.float())

    def _add_moments(self, clips: SampleStatistics) -> None:
        self._moments.add(
            {
                "06_Diffusion/Beta": clips.beta,
                "06_Diffusion/Alphas_Cumprod": clips.alphas_cumprod,
                "06_Diffusion/X0_MSE": clips.x0_mse,
            }
        )
        has_signal = ~clips.is_terminal
        self._moments.add_masked("06_Diffusion/Noise_Prediction_MSE", clips.noise_mse, has_signal)
        self._moments.add_masked("06_Diffusion/Noise_Prediction_MAE", clips.noise_mae, has_signal)
        self._moments.add_masked("06_Diffusion/Signal_to_Noise_Ratio", clips.snr_decibel, has_signal)

    def _write_distribution(self, step: int, num_timesteps: int, writer: Writer) -> None:
        if self._timestep_counts is None:
            return
        drawn = self._timestep_counts.collect()
        bins, counts = self._timestep_counts.bins, drawn.counts.tolist()
        # Bins cover the whole range, not only what was drawn, so that histograms of different steps line up.
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
        tag = "06_Diffusion/Timestep_Distribution"
        writer.histogram(tag, histogram, step, TAGS[tag].description)

    def _draw(self, step: int, num_timesteps: int, history: LossHistory, writer: Writer) -> None:
        if not history.has_columns:
            return
        picture = heat_map(
            history.means(),
            column_edges=history.step_edges(),
            y_range=(0.0, float(num_timesteps)),
            title="Loss by timestep over time",
            x_label="optimizer step",
            y_label="timestep",
            value_label="MSE",
        )
        tag = "06_Diffusion/Loss_By_Timestep_Over_Time"
        writer.image(tag, picture, step, TAGS[tag].description)
