"""The time-to-loss benchmark runs, and its ratios follow from its curves."""

import dataclasses
import itertools
import json
import math
import statistics
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from benchmarks import time_to_loss
from benchmarks.loss_curve_worker import LossCurveRun, validation_loss
from benchmarks.loss_curves import (
    FailedRun,
    LossCurve,
    LossCurvePlan,
    LossPoint,
    curve_from_json,
    first_time_at,
    lead_over,
    leads,
    validation_times,
)
from benchmarks.loss_report import report
from evaluation.text_use import measure_text_use

PLAN = LossCurvePlan(
    network="text2sign",
    seed=0,
    training_seconds=0.4,
    parameters=300_000,
    learning_rate=1e-3,
    image_size=16,
    num_frames=4,
    batch_size=2,
    training_clips=8,
    validation_clips=8,
    cache_folder="",
)


def curve(network, losses, *, seconds_a_step=1.0, seed=0):
    points = tuple(LossPoint(seconds_a_step * step, step, loss) for step, loss in enumerate(losses))
    return LossCurve(network, seed, 5_000_000, 8e-4, points, predict_zero=1.0, text_gap=0.01)


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
        FailedRun("diffusers", 3, "more than 16 GiB"),
    ]
    text = "\n".join(report(PLAN, runs))
    assert "| 0 | diffusers | 0.6000 | 12.0 s | 1.5 s | 8.0 |" in text
    assert "| 1 | diffusers | 0.9000 | 9.0 s | at most 1.0 s | at least 9.0 |" in text
    assert "| 2 | diffusers | 0.3000 | 9.0 s | not reached | not reached |" in text
    assert "| diffusers | seed 3: more than 16 GiB |" in text
    assert "**text2sign was there at least 8.5 (8.0 to 9.0) times sooner**, over 2 of 4 seeds." in text
    assert "did not reach the best peer's lowest loss with seed 2." in text
    assert "1 of 4 seeds have nothing to compare" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith(("| network", "| diff"))}) == 1


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


def test_a_run_learns_and_its_loss_is_the_trainers(tmp_path):
    run = LossCurveRun(dataclasses.replace(PLAN, cache_folder=str(tmp_path)))
    before = {name: value.clone() for name, value in run._model.state_dict().items()}
    run._model.eval()
    loss_before = validation_loss(run._model, run._objective, run._gauge, PLAN.batch_size)
    run._model.train()
    run._warm_up()
    assert all(torch.equal(value, before[name]) for name, value in run._model.state_dict().items())
    result = run.train()
    assert result.points[0].step == 0
    assert result.points[0].loss == pytest.approx(loss_before, rel=1e-6)
    assert result.best.loss < 0.9 * result.points[0].loss
    assert [point.step for point in result.points] == sorted({point.step for point in result.points})
    assert result.last.seconds >= PLAN.training_seconds > result.points[-2].seconds
    run._model.eval()
    objective = run._objective
    use = measure_text_use(run._model, objective.schedule, objective.prediction_type, run._gauge, 3)
    assert validation_loss(run._model, objective, run._gauge, 2) == pytest.approx(use.correct, rel=1e-5)
    assert result.last.loss == pytest.approx(use.correct, rel=1e-5)
    assert result.text_gap == pytest.approx(use.shuffled - use.correct, abs=1e-6)
    assert result.parameters == sum(value.numel() for value in before.values())


def test_seeds_change_the_weights_and_not_the_clips_that_are_validated(tmp_path):
    plan = dataclasses.replace(PLAN, cache_folder=str(tmp_path), training_clips=2)
    runs = [LossCurveRun(dataclasses.replace(plan, seed=seed)) for seed in (0, 0, 1)]
    weights = [torch.cat([value.flatten() for value in run._model.state_dict().values()]) for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(runs[0]._gauge.video_BCTHW, runs[2]._gauge.video_BCTHW)
    assert torch.equal(runs[0]._gauge.noise_BCTHW, runs[2]._gauge.noise_BCTHW)
    assert torch.equal(runs[0]._gauge.tokens_BL, runs[2]._gauge.tokens_BL)


def test_a_run_in_a_process_of_its_own(tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert time_to_loss.main(["--quick", "--minutes=0.005", "--networks=text2sign", f"--json={path}"]) == 0
    (run,) = json.loads(path.read_text())["runs"]
    assert curve_from_json(run).last.seconds >= 0.3
    assert "1 of 1 seeds have nothing to compare" in capsys.readouterr().out


def test_a_small_comparison_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(time_to_loss, "train", lambda plan: LossCurveRun(plan).train())  # saves importing PyTorch anew
    path, picture = tmp_path / "figures.json", tmp_path / "curves.png"
    networks = ["text2sign", "video-diffusion-pytorch"]
    arguments = ["--quick", "--minutes=0.01", "--peer-learning-rate=0.0003", f"--json={path}", f"--plot={picture}"]
    assert time_to_loss.main([*arguments, "--networks", *networks]) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    curves = [curve_from_json(run) for run in figures["runs"]]
    assert [run.network for run in curves] == networks
    assert [run.learning_rate for run in curves] == [8e-4, 3e-4]
    for run in curves:
        assert run.last.seconds >= 0.6
        assert run.last.step >= 1
        assert f"| {run.network} | 1 | {run.parameters / 1e6:.2f} M | {run.learning_rate:g} |" in printed
    assert [dataclasses.asdict(lead) | {"ratio": lead.ratio} for lead in leads(curves)] == figures["leads"]
    for lead in figures["leads"]:
        if lead["our_seconds"] is not None:
            assert lead["ratio"] == pytest.approx(lead["peer_seconds"] / lead["our_seconds"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert statistics.fmean(run.predict_zero for run in curves) == pytest.approx(curves[0].predict_zero)


def test_a_library_that_is_missing_is_named_before_anything_is_trained(monkeypatch, capsys):
    def without_diffusers(*distributions):
        raise PackageNotFoundError("diffusers")

    monkeypatch.setattr(time_to_loss, "machine_line", without_diffusers)
    monkeypatch.delattr(time_to_loss, "train")
    assert time_to_loss.main(["--quick"]) == 1
    assert "diffusers is not installed: pip install -r benchmarks/requirements.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--minutes=0", "--minutes=nan", "--seeds=-1", "--networks=other", "--learning-rate=x", "--plot=a.txt"],
)
def test_bad_options_end_with_the_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        time_to_loss.main([option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err
