"""What all trials of a study share, made once before the first of them and kept in ``teacher/``.

The teacher's weights, its answers on training views, its layer outputs for the repair, the validation pictures
with the teacher's versions of them, the statistics of the reference pictures, the anchors of every plot (teacher
and untranslated input), the noise of FID, and the learning rates that do the teacher no harm. ``prepare`` writes
them; ``TrialAssets`` reads them back in each worker, memory-mapped where they are large.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gs_search.data import DataSource, PictureSet, open_data
from gs_search.data.images import to_uint8
from gs_search.errors import BadInput, DataError
from gs_search.measure.features import inception_features
from gs_search.measure.fid import Reference, frechet_distance
from gs_search.measure.flops import count_flops
from gs_search.measure.inception import load_inception
from gs_search.measure.kid import kernel_distance
from gs_search.measure.psnr import psnr
from gs_search.networks import ModuleArchitecture
from gs_search.results.record import (
    Baselines,
    InputFigures,
    Noise,
    Protocol,
    TeacherFigures,
    read_baselines,
    write_record,
)
from gs_search.slimming.learning_rates import HARMLESS_STEPS, harm_of_rates, rate_factor
from gs_search.slimming.lessons import Lessons
from gs_search.slimming.precision import decide, settled
from gs_search.slimming.repair import RepairTargets, record_targets
from gs_search.slimming.student import load_student
from gs_search.slimming.teacher import Teacher
from gs_search.slimming.training import RealPictures
from gs_search.study.settings import SlimmingSettings, settings_from_point
from gs_search.system.files import draft_of
from gs_search.system.machine import cores, forget_peak, peak_own_mb
from gs_search.trial.lessons import view_of, write_lessons
from gs_search.trial.samples import first_pictures, range_warnings
from gs_search.trial.teacher import (
    frozen_json,
    frozen_lines,
    generator_of,
    save_generator,
    saved_generator,
    slimmable_teacher,
)

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = ["TrialAssets", "device_of", "paint", "prepare"]

MAX_REAL = 512
"""Pictures of the target domain that are kept for the discriminator."""

NOISE_RESAMPLES = 20

SAMPLE_PICTURES = 8


def device_of(config: StudyConfig) -> torch.device:
    """The device of a study's trials on this machine.

    Raises:
        BadInput: the study asks for CUDA and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device: the study asks for cuda, but PyTorch sees no GPU here; use device: cpu or auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


@torch.no_grad()
def paint(generator: nn.Module, pictures: Tensor, batch_size: int = 4) -> Tensor:
    """Run a generator on N x 3 x H x W bytes; float32 N x 3 x H x W in [-1, 1] on the CPU."""
    device = next(generator.parameters()).device
    outputs = []
    for chunk in pictures.split(batch_size):
        outputs.append(generator(chunk.to(device).float() / 127.5 - 1.0).float().cpu())
    return torch.cat(outputs)


def prepare(
    config: StudyConfig, folder: RunFolder, log: Callable[[str], None], *, retrain_teacher: bool = False
) -> None:
    """Make the assets of a study; what is there already is kept.

    Args:
        log: gets one line a step.
        retrain_teacher: train the teacher anew, whatever the study names.

    Raises:
        BadInput: data, checkpoint or device cannot be used; nothing but finished files is left behind.
    """
    if (folder.teacher / "baselines.json").is_file() and not retrain_teacher:
        return
    device = device_of(config)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    place = folder.teacher
    place.mkdir(parents=True, exist_ok=True)
    (place / "baselines.json").unlink(missing_ok=True)

    precision = decide(config.settings["precision"], device)
    log(str(precision))
    data = open_data(config.data, config.image_px, config.seed)
    for tally in data.tallies:
        for line in (tally.line(), *tally.notes()):
            log(line)
    generator, architecture = generator_of(config, data, device, log, retrain=retrain_teacher, source=folder.source)
    save_generator(place / "generator.safetensors", generator, architecture)
    if config.teacher.kind == "module":
        for line in range_warnings(config, first_pictures(data.source("val")), generator):
            log(f"warning, teacher: {line}")
    teacher = slimmable_teacher(config, generator).to(device)
    for line in frozen_lines(teacher):
        log(line)

    lessons = write_lessons(config, data.source("train"), teacher, place / "lessons", log)
    settings = dataclasses.replace(_boldest(config), precision=precision.precision)
    repair = _evaluation_pictures(data.source("train"), settings.repair_pictures)
    _save_targets(place / "repair.safetensors", record_targets(teacher.network, _floats(repair).to(device)), repair)

    log("validation and reference pictures")
    validation = _evaluation_pictures(data.source("val"), config.measure.fid_images)
    painted = paint(teacher.network, validation)
    np.save(place / "validation.npy", validation.numpy())
    np.save(place / "validation_outputs.npy", painted.half().numpy())
    reference_pictures = _reference_pictures(config, data, teacher)
    np.save(place / "reference_pictures.npy", reference_pictures.numpy())
    real = data.target("train")
    if real is not None:
        np.save(place / "real.npy", _views_of(real, min(len(real), MAX_REAL)).numpy())

    inception = load_inception(device)
    describe = functools.partial(inception_features, model=inception, threads=cores())  # no trial runs yet
    reference = Reference.from_features(describe(reference_pictures))
    reference.save(place / "reference.npz")
    log("anchors: the teacher and the untranslated input")
    features = describe(to_uint8(painted))
    untouched = describe(validation)
    flops = count_flops(generator.cpu(), config.image_px)
    params = sum(p.numel() for p in generator.parameters())
    preparation_mb = peak_own_mb()
    forget_peak()
    harm = harm_of_rates(teacher, settings, lessons, seed=config.seed)
    trial_mb = peak_own_mb()
    kept = ", ".join(f"x {row['factor']:g}: {row['psnr_to_teacher']:.1f} dB" for row in harm)
    log(f"what {HARMLESS_STEPS} steps leave of the teacher, by learning rates: {kept}")
    baselines = Baselines(
        pictures=tuple(tally.to_json() for tally in data.tallies),
        protocol=_protocol(config, data, len(validation), len(reference_pictures), inception.weights_sha256),
        teacher=TeacherFigures(
            fid=frechet_distance(features, reference),
            kid=kernel_distance(features, reference.features).full,
            psnr_to_teacher=None,
            gflops=flops.macs / 1e9,
            macs_paper=flops.macs_paper,
            size_mb=4 * params / 1e6,
            params=params,
        ),
        input=InputFigures(
            fid=frechet_distance(untouched, reference),
            kid=kernel_distance(untouched, reference.features).full,
            psnr_to_teacher=psnr(_floats(validation), painted),
        ),
        noise=Noise(fid_std=_fid_noise(features, reference, config.seed), method=NOISE_METHOD),
        learning_rate_harm=tuple(harm),
        frozen=frozen_json(teacher),
        precision=precision.to_json(),
        gpu_memory=_gpu_memory(device),
        # Main memory. The steps of ``harm_of_rates``, on the whole teacher, take what no student's exceed.
        memory={"trial_mb": round(trial_mb, 1), "preparation_mb": round(max(preparation_mb, trial_mb), 1)},
    )
    write_record(place / "baselines.json", baselines)


def _gpu_memory(device: torch.device) -> dict[str, float] | None:
    """What the steps of ``harm_of_rates``, on the whole teacher, have taken at most, and what there is; in 10^6 bytes.

    No student takes more; so many trials go on one GPU (``engine.ray.local``).
    """
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    return {"trial_mb": torch.cuda.max_memory_reserved(device) / 1e6, "total_mb": total / 1e6}


class TrialAssets:
    """The assets as a worker uses it; ``of`` keeps one for each run folder in the process."""

    def __init__(self, place: Path, config: StudyConfig) -> None:
        self.device = device_of(config)
        self.baselines = read_baselines(place / "baselines.json")
        generator, self.architecture = saved_generator(place / "generator.safetensors", place / "source")
        self._own = generator if isinstance(self.architecture, ModuleArchitecture) else None
        self.teacher = Teacher(generator, config.image_px).to(self.device)
        self.lessons = Lessons.open(place / "lessons")
        self.targets = _load_targets(place / "repair.safetensors", self.device)
        self.validation = torch.from_numpy(np.load(place / "validation.npy"))
        self.validation_outputs = torch.from_numpy(np.load(place / "validation_outputs.npy")).float()
        self.reference = Reference.load(place / "reference.npz")
        self.inception = load_inception(self.device)
        real = place / "real.npy"
        self._real = np.load(real, mmap_mode="r") if real.is_file() else None

    @staticmethod
    def of(folder: RunFolder, config: StudyConfig) -> TrialAssets:
        """Load, or return what this process has loaded for the same files before."""
        stamp = (folder.teacher / "baselines.json").stat().st_mtime_ns
        return _cached(folder.teacher, stamp, _Holder(config))

    def load_student(self, path: Path) -> nn.Module:
        """A student of this teacher from its file, on the CPU; raises CheckpointError where it is none."""
        return load_student(path, self._own)

    def settled(self, settings: SlimmingSettings) -> SlimmingSettings:
        """The settings with ``precision: auto`` replaced by what the preparation has decided for all of the study."""
        decided = self.baselines.precision
        if settings.precision != "auto" or decided is None:  # of a version that knew no ``auto``
            return settled(settings, self.device)
        return dataclasses.replace(settings, precision=decided["precision"])

    def rate_factor(self, *student_psnr: float) -> float:
        """Factor on the learning rates for an unpruned network, or for a student of so many decibels."""
        return rate_factor(self.baselines.learning_rate_harm, *student_psnr)

    def real(self, seed: int) -> RealPictures | None:
        """A source of target-domain pictures in [-1, 1] for the discriminator, or None where there are none."""
        if self._real is None:
            return None
        stored = self._real

        def draw(step: int, count: int) -> Tensor:
            chosen = np.random.default_rng((seed, step)).integers(0, len(stored), count)
            return _floats(torch.from_numpy(stored[chosen]))

        return draw


class _Holder:
    """Lets ``lru_cache`` ignore the study: the run folder names it already."""

    def __init__(self, config: StudyConfig) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Holder)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=1)
def _cached(place: Path, stamp: int, holder: _Holder) -> TrialAssets:
    return TrialAssets(place, holder.config)


# Halves drawn without replacement scatter as much as whole sets of other pictures do: half the variance comes from
# their size, which doubles it, and half is missing because they share the set.
NOISE_METHOD = f"standard deviation of the teacher's FID over {NOISE_RESAMPLES} random halves of its pictures"


def _fid_noise(features: np.ndarray, reference: Reference, seed: int) -> float:
    rng = np.random.default_rng(seed)
    half = max(len(features) // 2, 2)
    values = [
        frechet_distance(features[rng.choice(len(features), half, replace=False)], reference)
        for _ in range(NOISE_RESAMPLES)
    ]
    return float(np.std(values))


def _views_of(pictures: PictureSet, count: int) -> Tensor:
    return torch.stack([view_of(pictures, number) for number in range(count)])


def _evaluation_pictures(pictures: PictureSet, count: int) -> Tensor:
    count = min(count, len(pictures))
    if count < 2:
        raise DataError(f"at least two pictures are needed for each split, but one of them has {count}")
    return torch.stack([pictures.picture(k) for k in range(count)])


def _reference_pictures(config: StudyConfig, data: DataSource, teacher: Teacher) -> Tensor:
    """Real target pictures of the validation split, or the teacher's on photos that are used for nothing else."""
    target = data.target("reference")
    if target is not None:
        return _evaluation_pictures(target, config.data.reference)
    return to_uint8(paint(teacher.network, _evaluation_pictures(data.source("reference"), config.data.reference)))


def _protocol(config: StudyConfig, data: DataSource, pictures: int, references: int, weights: str) -> Protocol:
    protocol: dict[str, Any] = {
        "generator_split": "val",
        "pictures": pictures,
        "reference": "real target pictures" if data.reference_kind == "target" else "teacher on other photos",
        "reference_kind": data.reference_kind,
        "reference_pictures": references,
        "image_px": config.image_px,
        "resize": "299 bilinear (pytorch-fid)",
        "features": "Inception-v3, pool3, 2015-12-05",
        "weights_sha256": weights,
        "data": data.describe(),
    }
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    return Protocol.from_json({"id": digest[:12], **protocol})


def _boldest(config: StudyConfig) -> SlimmingSettings:
    """The study's defaults with the highest learning rates that its space may propose."""
    point = dict(config.space.constants)
    for parameter in config.space.parameters:
        if parameter.name in ("learning_rate", "scale_learning_rate"):
            options = [parameter.high, *(parameter.choices or ())]
            point[parameter.name] = max(cast(float, o) for o in options if o is not None)
    return settings_from_point(point, config.settings)


def _floats(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1.0


def _save_targets(path: Path, targets: RepairTargets, pictures: Tensor) -> None:
    tensors = {"pictures": pictures.contiguous()}
    for name in targets.outputs:
        tensors[f"positions/{name}"] = targets.positions[name].to(torch.int32).cpu().contiguous()
        tensors[f"outputs/{name}"] = targets.outputs[name].cpu().contiguous()
    with draft_of(path) as draft:
        save_file(tensors, draft)


def _load_targets(path: Path, device: torch.device) -> RepairTargets:
    with safe_open(path, "pt") as opened:
        names = [name.removeprefix("outputs/") for name in opened.keys() if name.startswith("outputs/")]  # noqa: SIM118
        return RepairTargets(
            pictures=_floats(opened.get_tensor("pictures")).to(device),
            positions={name: opened.get_tensor(f"positions/{name}").long() for name in names},
            outputs={name: opened.get_tensor(f"outputs/{name}") for name in names},
        )
