"""The time-to-loss benchmark runs, and its ratios follow from its curves."""

import dataclasses
import itertools
import json
import math
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from benchmarks import loss_curve_worker, time_to_loss
from benchmarks.loss_curve_worker import (
    LossCurve,
    LossCurvePlan,
    LossCurveRun,
    LossPoint,
    curve_from_json,
    validation_loss,
    validation_times,
)
from benchmarks.time_to_loss import first_time_at, lead_over, leads, report
from benchmarks.worker_process import MemoryLimitError, WorkerError
from measures.text_use import measure_text_use

SIZES = (
    *("--image-size=16", "--patch-size=2", "--max-frames=4", "--max-word-letters=3", "--batch-size=2"),
    *("--epoch-size=8", "--validation-clips=8"),
)
PLAN = LossCurvePlan(
    network="text2sign",
    seed=0,
    training_seconds=0.4,
    parameters=300_000,
    options=(*SIZES, "--spatial-attention-sizes=4", "--model-channels=16,32", "--attention-head-channels=16"),
)


def with_options(*options):
    return dataclasses.replace(PLAN, options=(*PLAN.options, *options))


def curve(network, losses, *, seconds_a_step=1.0, seed=0):
    points = tuple(LossPoint(seconds_a_step * step, step, loss) for step, loss in enumerate(losses))
    return LossCurve(network, seed, 5_000_000, points, text_gap=0.01)


def test_a_loss_is_reached_between_the_validations_around_it():
    points = [LossPoint(10.0, 1, 1.0), LossPoint(20.0, 2, 0.6), LossPoint(40.0, 4, 0.7), LossPoint(80.0, 8, 0.2)]
    assert first_time_at(points, 0.7) == (pytest.approx(17.5), 1)
    assert first_time_at(points, 0.6) == (pytest.approx(20.0), 1)
    assert first_time_at(points, 0.45) == (pytest.approx(60.0), 3)  # halfway from 0.7 to 0.2
    assert first_time_at(points, 1.5) == (10.0, 0)
    assert first_time_at(points, 0.1) is None
    assert first_time_at([LossPoint(1.0, 1, math.nan), LossPoint(2.0, 2, 0.5)], 0.6) == (2.0, 1)


def test_two_networks_that_learn_alike_by_the_step_differ_by_their_seconds_a_step():
    losses = [1 / (1 + step) for step in range(31)]
    ours, peer = curve("text2sign", losses, seconds_a_step=0.5), curve("diffusers", losses, seconds_a_step=10.0)
    lead = lead_over(ours, [peer])
    assert (lead.peer, lead.loss, lead.peer_seconds) == ("diffusers", losses[-1], 300.0)
    assert lead.ratio == pytest.approx(20.0)
    assert not lead.is_bound


def test_the_best_peer_is_the_one_of_the_lowest_loss_at_the_time_it_had_it_first():
    ours = curve("text2sign", [1.0, 0.8, 0.4, 0.2])
    diffusers = curve("diffusers", [1.0, 0.9, 0.5, 0.7], seconds_a_step=7.0)  # its lowest is not its last
    other = curve("video-diffusion-pytorch", [0.9, 0.8, 0.7, 0.6], seconds_a_step=8.0)
    lead = lead_over(ours, [diffusers, other])
    assert (lead.peer, lead.loss, lead.peer_seconds) == ("diffusers", 0.5, 14.0)
    assert lead.our_seconds == pytest.approx(1.75)
    assert lead.ratio == pytest.approx(8.0)


def test_what_cannot_be_compared_is_said_and_not_made_up():
    ours = curve("text2sign", [1.0, 0.8, 0.7])
    assert lead_over(ours, []) is None
    assert lead_over(ours, [curve("diffusers", [0.5, 0.6, 0.9])]) is None  # it got worse from the start
    not_reached = lead_over(ours, [curve("diffusers", [1.0, 0.1])])
    assert (not_reached.our_seconds, not_reached.ratio) == (None, None)
    at_once = lead_over(ours, [curve("diffusers", [1.0, 0.9], seconds_a_step=9.0)])
    assert (at_once.our_seconds, at_once.is_bound, at_once.ratio) == (1.0, True, 9.0)


def test_the_report_shows_failures_bounds_and_the_spread_over_the_seeds():
    runs = [
        *(curve("text2sign", [1.0, 0.8, 0.4], seed=seed) for seed in range(4)),
        curve("diffusers", [1.0, 0.8, 0.6], seconds_a_step=6.0, seed=0),  # 12 s to 1.5 s
        curve("diffusers", [1.0, 0.9], seconds_a_step=9.0, seed=1),  # 9 s to at most 1 s
        curve("diffusers", [1.0, 0.3], seconds_a_step=9.0, seed=2),
    ]
    failures = {"video-diffusion-pytorch": MemoryLimitError("more than 16 GiB")}
    text = "\n".join(report(PLAN, runs, failures))
    assert "| 0 | diffusers | 0.6000 | 12.0 s | 1.5 s | 8.0 |" in text
    assert "| 1 | diffusers | 0.9000 | 9.0 s | at most 1.0 s | at least 9.0 |" in text
    assert "| 2 | diffusers | 0.3000 | 9.0 s | not reached | not reached |" in text
    assert "| video-diffusion-pytorch | failed: more than 16 GiB |" in text
    assert "**" not in text  # no headline that leaves out the seed where ours was not there
    assert "lowest loss in 2 of 3 compared seeds." in text
    assert "1 of 4 seeds have nothing to compare" in text
    assert (
        len({line.count("|") for line in text.splitlines() if line.startswith(("| network", "| diff", "| video"))}) == 1
    )


def test_the_headline_is_printed_where_every_compared_seed_was_reached():
    runs = [
        *(curve("text2sign", [1.0, 0.8, 0.4], seed=seed) for seed in range(3)),
        curve("diffusers", [1.0, 0.8, 0.6], seconds_a_step=6.0, seed=0),
        curve("diffusers", [1.0, 0.8, 0.6], seconds_a_step=3.0, seed=1),
    ]
    lines = report(PLAN, runs, {})
    assert "**text2sign was there 6.0 (4.0 to 8.0) times sooner**, over 2 of 3 seeds." in lines
    assert "1 of 3 seeds have nothing to compare." in lines
    header, row = (line for line in lines if line.startswith(("| network |", "| text2sign |")))
    columns = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert columns["loss before"] == "1.0000 (1.0000 to 1.0000)"
    assert columns["lowest loss"] == "0.4000 (0.4000 to 0.4000)"


def test_leads_pair_the_curves_of_one_seed():
    runs = [
        curve("text2sign", [1.0, 0.5, 0.25], seed=5),
        curve("diffusers", [1.0, 0.5], seconds_a_step=4.0, seed=6),
        curve("text2sign", [1.0, 0.7, 0.5], seed=6),
    ]
    assert [(lead.seed, lead.ratio) for lead in leads(runs)] == [(6, pytest.approx(2.0))]


def test_a_curve_survives_json():
    original = curve("diffusers", [1.0, 0.5])
    assert curve_from_json(json.loads(json.dumps(dataclasses.asdict(original)))) == original


def test_validations_double_every_other_time_up_to_the_end():
    times = validation_times(256.0)
    assert (times[0], times[-1]) == (1.0, 256.0)
    assert all(later / earlier == pytest.approx(2**0.5) for earlier, later in itertools.pairwise(times))


class SteppingClock:
    """Every step takes one sixtieth of the plan's time, whatever the machine needs for it."""

    def __init__(self):
        self._now = 0.0

    def perf_counter(self):
        self._now += PLAN.training_seconds / 60
        return self._now


@pytest.mark.slow
def test_a_run_learns_and_its_loss_is_the_trainers(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_curve_worker, "time", SteppingClock())
    run = LossCurveRun(with_options(f"--cache-dir={tmp_path}"))
    before = {name: value.clone() for name, value in run._model.state_dict().items()}
    run._model.eval()
    loss_before = validation_loss(run._model, run._objective, run._gauge, run._groups)
    run._model.train()
    run._warm_up()
    assert all(torch.equal(value, before[name]) for name, value in run._model.state_dict().items())
    result = run.train()
    assert result.points[0].step == 0
    assert result.points[0].loss == pytest.approx(loss_before, rel=1e-6)
    assert result.best.loss < 0.9 * result.points[0].loss
    # After 60 / 2 ** (n / 2) steps, rounded up, each once; the last ones where 60 sixtieths are a little less than 1.
    steps = sorted({math.ceil(60 / 2 ** (halvings / 2)) for halvings in range(17)})
    assert [point.step for point in result.points] == pytest.approx([0, *steps], abs=1)
    assert result.last.seconds >= PLAN.training_seconds > result.points[-2].seconds
    run._model.eval()
    objective = run._objective
    use = measure_text_use(run._model, objective, run._gauge, 3, seed=0)
    assert validation_loss(run._model, objective, run._gauge, run._groups) == pytest.approx(use.correct, rel=1e-5)
    assert result.last.loss == pytest.approx(use.correct, rel=1e-5)
    assert result.text_gap == pytest.approx(use.shuffled - use.correct, abs=1e-6)
    assert result.parameters == sum(value.numel() for value in before.values())


@pytest.mark.slow
def test_seeds_change_weights_clips_and_noise_and_networks_change_neither_clips_nor_noise(tmp_path):
    plan = with_options(f"--cache-dir={tmp_path}", "--epoch-size=2")
    peer = dataclasses.replace(plan, network="video-diffusion-pytorch")
    first, again, other_network, other_seed = (
        LossCurveRun(each) for each in (plan, plan, peer, dataclasses.replace(plan, seed=1))
    )

    def weights(run):
        return torch.cat([value.flatten() for value in run._model.state_dict().values()])

    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other_seed))
    for field in ("clips", "noises", "tokens_BL"):
        own, same, changed = (tuple(getattr(each._gauge, field)) for each in (first, other_network, other_seed))
        assert all(map(torch.equal, own, same))
        assert not all(map(torch.equal, own, changed))
    batches = [next(run._batches) for run in (first, other_network, other_seed)]
    assert batches[0].ids == batches[1].ids
    assert torch.equal(batches[0].video_BCTHW, batches[1].video_BCTHW)
    assert set(batches[0].ids).isdisjoint(batches[2].ids)


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own(tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert time_to_loss.main(["--quick", "--minutes=0.005", "--networks=text2sign", f"--json={path}"]) == 0
    (run,) = json.loads(path.read_text())["runs"]
    assert curve_from_json(run).last.seconds >= 0.3
    assert "1 of 1 seeds have nothing to compare" in capsys.readouterr().out


@pytest.mark.slow
def test_a_small_comparison_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(time_to_loss, "train", lambda plan: LossCurveRun(plan).train())  # saves importing PyTorch anew
    path = tmp_path / "figures.json"
    networks = ["text2sign", "video-diffusion-pytorch"]
    arguments = ["--quick", "--minutes=0.01", f"--json={path}"]
    assert time_to_loss.main([*arguments, "--networks", *networks]) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    curves = [curve_from_json(run) for run in figures["runs"]]
    assert [run.network for run in curves] == networks
    for run in curves:
        assert run.last.seconds >= 0.6
        assert run.last.step >= 1
        assert f"| {run.network} | 1 | {run.parameters / 1e6:.2f} M |" in printed


def known_curves(plan):
    """Both networks learn alike by the step; ours takes a twentieth of the seconds."""
    seconds_a_step = 0.5 if plan.network == "text2sign" else 10.0
    return curve(plan.network, [1.0, 0.5, 0.25], seconds_a_step=seconds_a_step, seed=plan.seed)


def test_figures_and_report_follow_from_the_curves(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(time_to_loss, "train", known_curves)
    path = tmp_path / "figures.json"
    arguments = ["--seeds", "4", "7", f"--json={path}", "--networks", "text2sign", "video-diffusion-pytorch"]
    assert time_to_loss.main(arguments) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    expected = {"loss": 0.25, "peer_seconds": 20.0, "our_seconds": 1.0, "ratio": 20.0, "is_bound": False}
    peer = "video-diffusion-pytorch"
    assert figures["leads"] == [{"seed": seed, "peer": peer, **expected} for seed in (4, 7)]
    assert "--validation-clips=16" in figures["plan"]["options"]
    assert "**text2sign was there 20.0 (20.0 to 20.0) times sooner**, over 2 of 2 seeds." in printed


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryLimitError("more than 16 GiB"), 0), (WorkerError("ended with exit code 1"), 1)]
)
def test_a_crash_is_told_from_a_limit_by_the_exit_code(error, code, monkeypatch, capsys):
    def run(command, seconds):
        raise error

    monkeypatch.setattr(time_to_loss, "run_worker", run)
    assert time_to_loss.main(["--quick", "--networks", "text2sign"]) == code
    assert f"| text2sign | failed: {error} |" in capsys.readouterr().out


def test_ctrl_c_ends_with_a_report_of_the_runs_so_far(monkeypatch, capsys):
    def interrupted(plan):
        if plan.seed == 1:
            raise KeyboardInterrupt
        return known_curves(plan)

    monkeypatch.setattr(time_to_loss, "train", interrupted)
    arguments = ["--seeds", "0", "1", "--networks", "text2sign", "video-diffusion-pytorch"]
    assert time_to_loss.main(arguments) == 130
    assert "**text2sign was there 20.0 (20.0 to 20.0) times sooner**, over 1 of 1 seeds." in capsys.readouterr().out


def test_the_report_is_printed_before_the_figures_are_written(full_disk, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_loss, "train", known_curves)
    assert time_to_loss.main(["--seeds", "0", "1", "--networks", "text2sign", f"--json={tmp_path / 'a.json'}"]) == 1
    printed = capsys.readouterr()
    assert "| text2sign | 2 |" in printed.out
    assert printed.err.endswith("cannot be written: the disk is full\n")


def test_a_library_that_is_missing_is_named_before_anything_is_trained(monkeypatch, capsys):
    def without_diffusers(name):
        if name == "diffusers":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", without_diffusers)
    monkeypatch.delattr(time_to_loss, "train")
    assert time_to_loss.main(["--quick"]) == 1
    assert "diffusers is not installed: pip install -r benchmarks/requirements.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--minutes=x", "--seeds=-1", "--networks=other"],
)
def test_bad_options_end_with_the_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        time_to_loss.main([option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "nan", "inf"])
def test_a_time_that_cannot_be_is_an_error(minutes, capsys):
    assert time_to_loss.main([f"--minutes={minutes}"]) == 1
    assert "--minutes must be a finite number above 0" in capsys.readouterr().err
