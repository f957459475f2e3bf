"""Which settings are recommended for clips whose facts are known: computed by hand, and always valid."""

import pytest

from common.settings import load_settings
from config import PRESETS, Config
from data.inspection import InspectedClip
from data.media.motion import Region
from data.media.resample import MediaFacts
from data.recommendation import recommend, with_options
from data.rows import ManifestRow, Media


def clip(seconds=2.0, rate=24.0, size=(1280, 720), region=None, kind="video"):
    facts = MediaFacts(*size, round(rate * seconds), seconds, (), region)
    return InspectedClip(ManifestRow("a", Media(kind, "a"), "hello"), "", "", facts)


def config_of(*options):
    return load_settings(Config, PRESETS, ["--data-root=clips", *options], program="").config


def advised(config, clips):
    return recommend(config, clips, [clip.facts.seconds for clip in clips])


def options_for(clips, *given):
    return " ".join(advised(config_of(*given), clips).options)


TALL = Region(0.0, 0.3, 1.0, 0.3 + 540 / 1280)  # 720 high and 540 wide: 42 % of the picture


def test_frames_are_enough_for_nineteen_of_twenty_clips_and_no_more_at_once_than_before():
    square = {"size": (32, 32)}
    clips = [clip(number / 5, **square) for number in range(1, 21)]  # to 4 s; the nineteenth has 3.8 s
    assert options_for(clips) == "--max-frames 44 --batch-size 1"  # 3.8 * 12 = 45.6 is nearer to 44 than to 48
    assert options_for(clips, "--batch-size=8") == "--max-frames 44 --batch-size 5"  # of 8 * 32 frames
    assert advised(config_of(), clips).reasons[0] == "95% of the clips have at most 44 frames at 12 a second"
    assert options_for(clips, "--clip-timing=stretched") == ""
    assert options_for([clip(600.0, **square)] * 3) == "--max-frames 1024 --batch-size 1"


def test_no_more_frames_a_second_than_are_stored():
    slow = [clip(2.0, 8.0, (32, 32))] * 3 + [clip(2.0, 25.0, (32, 32))]
    assert options_for(slow) == "--frames-per-second 8"
    assert advised(config_of(), slow).reasons[0].endswith("at most 16 frames at 8 a second, as most are stored")
    assert options_for([clip(600.0, 1 / 60, (32, 32))]) == "--frames-per-second 0.1 --max-frames 60 --batch-size 1"


SMALL = ("--image-size=32", "--patch-size=2")


@pytest.mark.parametrize(
    ("clips", "given", "expected"),
    [
        ([clip(region=TALL)], (), "--image-size 64,48 --spatial-attention-sizes 6 --clip-fit signer"),
        ([clip(region=TALL)], SMALL, "--image-size 64,48 --spatial-attention-sizes 12 --clip-fit signer"),
        ([clip(region=TALL), clip()], SMALL, "--image-size 32,64"),  # half of them move
        ([clip(region=Region(0, 0, 1, 0.6))], SMALL, "--image-size 32,64"),  # it is no less
        ([clip(size=(720, 1280))], (), "--image-size 64,32 --spatial-attention-sizes 4"),
        ([clip(size=(720, 1280))], SMALL, "--image-size 64,32"),
        ([clip(size=(500, 500))], (), ""),
        ([clip(size=(500, 500))], SMALL, "--image-size 64 --spatial-attention-sizes 16"),
        ([clip(size=(50, 50))], SMALL, "--image-size 48 --spatial-attention-sizes 12"),  # there are no more pixels
        ([clip(size=(20, 20))], SMALL, ""),
        ([clip(size=(500, 500), kind="pose")], SMALL, ""),
        ([clip(size=(500, 500))], ("--preset=base",), ""),
        (
            [clip(region=TALL)],
            ("--preset=base",),
            "--image-size 64,48 --spatial-attention-sizes 12,6 --clip-fit signer",
        ),
        (
            [clip(region=TALL)],
            ("--preset=large",),
            "--image-size 128,96 --spatial-attention-sizes 12,6 --clip-fit signer",
        ),
        ([clip(size=(500, 500))] * 8 + [clip()], ("--preset=base",), "--clip-fit pad"),
        ([clip(size=(500, 500))] * 9 + [clip()], ("--preset=base", "--clip-fit=pad"), "--clip-fit crop"),
    ],
)
def test_pictures_have_the_proportions_of_what_is_worth_seeing(clips, given, expected):
    assert options_for(clips, *given) == expected


EXTREMES = [clip(600.0, 1 / 60), clip(0.1, 240.0, (2000, 8)), clip(size=(8, 2000)), clip(region=Region(0, 0, 1 / 3, 1))]


@pytest.mark.parametrize(
    "given",
    [
        *((f"--preset={preset}",) for preset in PRESETS),
        ("--image-size=512", "--model-channels=64,64,64,64,64,64,64,64"),
        ("--min-frames=32", "--clip-fit=signer"),
    ],
)
@pytest.mark.parametrize("clips", [*([each] for each in EXTREMES), EXTREMES])
def test_what_is_recommended_can_be_trained_and_then_nothing_more_is(given, clips):
    advice = advised(config_of(*given), clips)
    better = config_of(*with_options(given, advice.options))
    assert advised(better, clips).options == ()
    assert all(advice.reasons)


def test_options_take_the_place_of_those_that_were_typed():
    typed = ["--image-size=16", "--max-frames", "4", "--data-allow", "/a", "/b", "--no-compile-model", "--seed=3"]
    assert with_options(typed, ["--max-frames", "48", "--image-size", "64,48"]) == [
        *("--data-allow", "/a", "/b", "--no-compile-model", "--seed=3"),
        *("--max-frames", "48", "--image-size", "64,48"),
    ]
