"""Metrics that are not ours: found by name, given real clips beside others, shown with ceiling and floor."""

import re
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from evaluation.clips import Labelled, RealClips
from evaluation.metrics import MetricClips, find_metric, metric_figures, real_ceilings
from tests.sources import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

PLUGIN = '''
import numpy

def brightness(clips):
    """Mean difference in brightness from the real clip of the caption."""
    assert len(clips.captions) == len(clips.clips) == len(clips.real)
    offset = 0 if clips.weights is None else float(clips.weights.read_text())
    pairs = zip(clips.clips, clips.real)
    return {"difference": offset + numpy.mean([abs(clip.mean() - real.mean()) for clip, real in pairs]),
            "rate": clips.frames_per_second, "undefined": float("nan")}

def broken(clips):
    return clips.nothing

def not_figures(clips):
    return {"name": "a word"}

def blackens(clips):
    for clip in (*clips.clips, *clips.real):
        clip[:] = 0
    return {"infinite": float("inf")}

def exits(clips):
    raise SystemExit(0)

def nothing(clips):
    pass

constant = 3
'''


class FrameMeans(nn.Module):
    """Stands for I3D: takes its options, returns the mean of each colour over the first and the second half."""

    def forward(self, video: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        first, second = video.chunk(2, dim=2)
        return torch.cat([first.mean(dim=[2, 3, 4]), second.mean(dim=[2, 3, 4])], dim=1)


class BrightestPixel(nn.Module):
    """Stands for a pose estimator: two joints, of which one is where red is and the other stands still."""

    def forward(self, frames: Tensor) -> Tensor:
        width = frames.shape[3]
        place = frames[:, 0].flatten(1).argmax(dim=1)
        moving = torch.stack([place // width, place % width], dim=1).float()
        return torch.stack([moving, torch.zeros_like(moving)], dim=1)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "plugin_of_a_user.py").write_text(PLUGIN)
    (tmp_path / "plugin_of_a_user_that_exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "plugin_of_a_user_that_fails.py").write_text('raise ValueError("the weights are not here")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_of_a_user", raising=False)
    return "plugin_of_a_user"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file that docs/evaluation.md shows."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "published_of_the_docs.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "published_of_the_docs", raising=False)
    return "published_of_the_docs"


def shade(value: int) -> numpy.ndarray:
    return numpy.full((4, 2, 2, 3), value, dtype=numpy.uint8)


REAL = RealClips(
    references=(Labelled("dark", shade(10)), Labelled("dark", shade(99)), Labelled("light", shade(110))),
    queries=(Labelled("dark", shade(12)), Labelled("Light", shade(114))),
    in_another_look=0,
)


def test_a_function_of_a_user_has_its_figures_with_ceiling_and_floor(plugin: str, tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("0.5")
    metrics = [find_metric(f"{plugin}:brightness"), find_metric(f"{plugin}:brightness={tmp_path / 'weights.txt'}")]
    ceilings = real_ceilings(metrics, REAL, 12.0)
    assert ceilings[0] == {"difference": 3.0, "rate": 12.0}  # (2 + 4) / 2
    generated = [Labelled("dark", shade(16)), Labelled("light", shade(120))]
    found, failures = metric_figures(metrics[:1], ceilings[:1], generated, REAL, 12.0)
    assert failures == []
    assert found == {
        f"{plugin}:brightness": {
            "difference": {"value": 8.0, "real_ceiling": 3.0, "shuffled_floor": (94 + 110) / 2},
            "rate": {"value": 12.0, "real_ceiling": 12.0, "shuffled_floor": 12.0},
        }
    }
    alone, _ = metric_figures(metrics[:1], ceilings[:1], generated[:1], REAL, 12.0)
    assert alone[f"{plugin}:brightness"] == {
        "difference": {"value": 6.0, "real_ceiling": 3.0, "shuffled_floor": None},
        "rate": {"value": 12.0, "real_ceiling": 12.0, "shuffled_floor": None},
    }
    assert ceilings[1]["difference"] == 3.5  # with the weights


def test_what_a_metric_does_to_its_clips_reaches_no_other_figure(plugin: str) -> None:
    metrics = [find_metric(f"{plugin}:blackens")]
    ceilings = real_ceilings(metrics, REAL, 12.0)
    generated = [Labelled("dark", shade(16))]
    found, (said,) = metric_figures(metrics, ceilings, generated, REAL, 12.0)
    assert said == f"--metric {plugin}:blackens: no figure of the generated clips is a finite number."
    assert found == {f"{plugin}:blackens": {}}
    shades = [int(each.clip.max()) for each in (*REAL.references, *REAL.queries, *generated)]
    assert shades == [10, 99, 110, 12, 114, 16]


def test_a_metric_that_fails_on_generated_clips_costs_no_other_figure(plugin: str) -> None:
    metrics = [find_metric(f"{plugin}:broken"), find_metric(f"{plugin}:brightness")]
    found, (failure,) = metric_figures(metrics, [{}, {}], [Labelled("dark", shade(16))], REAL, 12.0)
    assert list(found) == [f"{plugin}:brightness"]
    assert failure.startswith(f"--metric {plugin}:broken: failed in ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lpips", "--metric lpips: no such metric; name MODULE:FUNCTION"),
        ("no_such_module:f", "no_such_module cannot be imported"),
        ("PLUGIN_that_fails:f", "cannot be imported: the weights are not here"),
        ("PLUGIN:missing", "has no function missing"),
        ("PLUGIN:constant", "has no function constant"),
        ("PLUGIN:brightness=no/such/file.pt", "file.pt does not exist"),
        ("PLUGIN:broken", "AttributeError: 'MetricClips' object has no attribute 'nothing'"),
        ("PLUGIN:not_figures", 'returns no figures by name, such as {"fvd": 3.5}: could not convert string to float'),
        ("PLUGIN:nothing", "returns no figures by name, such as {\"fvd\": 3.5}: 'NoneType' object is not iterable"),
        ("PLUGIN:exits", "SystemExit: 0; mend it, or leave it out"),
        ("PLUGIN_that_exits:f", "cannot be imported: 3"),
    ],
)
def test_a_metric_that_cannot_be_used_says_why(text: str, message: str, plugin: str) -> None:
    with pytest.raises(UserError) as raised:
        real_ceilings([find_metric(text.replace("PLUGIN", plugin))], REAL, 12.0)
    assert message in str(raised.value)
    assert "--metric" in str(raised.value)


def test_fvd_of_the_docs_is_the_distance_of_two_gaussians_in_the_features_of_a_network(
    published: str, tmp_path: Path
) -> None:
    path = tmp_path / "network.pt"
    torch.jit.script(FrameMeans()).save(str(path))
    metric = find_metric(f"{published}:fvd={path}")
    generator = numpy.random.default_rng(0)
    clips = tuple(generator.integers(0, 256, (8 + index, 4, 4, 3), dtype=numpy.uint8) for index in range(6))
    brighter = tuple((clip // 2 + 100).astype(numpy.uint8) for clip in clips)

    def measured(first: tuple[numpy.ndarray, ...], second: tuple[numpy.ndarray, ...]) -> float:
        return metric.function(MetricClips(("",) * len(first), first, second, 12.0, path))["fvd"]

    assert measured(clips, clips) == pytest.approx(0, abs=1e-3)

    def features(videos: tuple[numpy.ndarray, ...]) -> numpy.ndarray:
        sampled = [video[((numpy.arange(16) + 0.5) / 16 * len(video)).astype(int)] for video in videos]
        halves = [(video[:8].mean(axis=(0, 1, 2)), video[8:].mean(axis=(0, 1, 2))) for video in sampled]
        return numpy.array([numpy.concatenate(half) for half in halves])

    first, second = features(clips), features(brighter)
    covariances = [numpy.cov(each, rowvar=False) for each in (first, second)]
    roots = numpy.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)
    expected = (
        ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
        + numpy.trace(covariances[0] + covariances[1])
        - 2 * numpy.sqrt(roots).real.sum()
    )
    assert measured(clips, brighter) == pytest.approx(expected, rel=1e-3)


def test_joint_error_of_the_docs_does_not_mind_speed_and_is_the_mean_over_joints(
    published: str, tmp_path: Path
) -> None:
    path = tmp_path / "poses.pt"
    torch.jit.script(BrightestPixel()).save(str(path))

    def dot(places: list[int]) -> numpy.ndarray:
        clip = numpy.zeros((len(places), 8, 8, 3), dtype=numpy.uint8)
        for moment, place in enumerate(places):
            clip[moment, 0, place] = 255
        return clip

    def measured(places: list[int], real: list[int]) -> float:
        clips = MetricClips(("a",), (dot(places),), (dot(real),), 12.0, path)
        return find_metric(f"{published}:dtw_mje={path}").function(clips)["dtw_mje"]

    assert measured([1, 1, 4, 4, 7, 7], [1, 4, 7]) == pytest.approx(0, abs=1e-6)  # the same, at half the speed
    assert measured([3], [5]) == pytest.approx(1)  # one joint is 2 away, the other 0
    assert measured([0, 0], [6, 6]) == pytest.approx(3)
