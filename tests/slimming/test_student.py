"""Packed files: bits in, the same bits out; hostile files refused."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gs_search.errors import CheckpointError
from gs_search.networks import Architecture, build, load_generator
from gs_search.slimming import Teacher, load_student, record_targets, save_student, slim
from gs_search.slimming.extraction import extract
from gs_search.slimming.layers import SlimGroupNorm, output_module, slim_layers
from gs_search.slimming.repair import attach_quantizers
from gs_search.slimming.sparsity import mask_
from gs_search.slimming.student import pack_codes, student_mb, unpack_codes
from gs_search.slimming.student_file import decode, encode
from gs_search.study.settings import SlimmingSettings
from tests.slimming.lessons import RandomLessons, random_teacher
from tests.slimming.test_channels import BITS, OWN, Depthwise, Skips, Transposed, random_alive, randomised

SMALL = Architecture("cyclegan_resnet", 8, 2)


@given(st.integers(2, 8), st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_codes_survive_packing_and_take_their_bits(bits: int, numbers: list[int]) -> None:
    high = 2 ** (bits - 1) - 1
    codes = torch.tensor([n % (2 * high + 1) - high for n in numbers], dtype=torch.int16)
    packed = pack_codes(codes, bits)
    assert len(packed) == -(-len(numbers) * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, [len(numbers)]), codes)


def test_packing_by_hand() -> None:
    # 4-bit codes -7, 0, 7 are stored as 0, 7, 14: 0000 0111 1110 0000
    assert pack_codes(torch.tensor([-7, 0, 7]), 4).tolist() == [0b00000111, 0b11100000]


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 32])
def test_a_loaded_student_paints_the_same_picture(bits: int, tmp_path: Path) -> None:
    teacher = random_teacher()
    lessons = RandomLessons(teacher)
    settings = SlimmingSettings(target_gflops_ratio=0.4, steps=3, weight_bits=bits, activation_bits=min(bits * 2, 8))
    student = slim(teacher, settings, lessons, record_targets(teacher.network, lessons.inputs), seed=0).network
    save_student(tmp_path / "s.safetensors", student, SMALL)
    with torch.no_grad():
        assert torch.equal(load_student(tmp_path / "s.safetensors")(lessons.inputs), student(lessons.inputs))


ARCHITECTURES = [
    Architecture("cyclegan_resnet", 8, 2),
    Architecture("cyclegan_resnet", 8, 1, affine=False),
    Architecture("cartoongan", 8, 1),
    Architecture("pix2pix_unet", 4, 4, norm="batch"),
    Architecture("pix2pix_unet", 4, 3, affine=False),
    Architecture("animeganv2", 4, 2, align_corners=False),
]


def random_students(teacher: Teacher, settings: SlimmingSettings, count: int = 3) -> list[torch.nn.Module]:
    """Cut anywhere, some groups to a single channel, some residual blocks to nothing."""
    network, _ = teacher.student("raw")
    attach_quantizers(teacher.graph, network, settings, torch.rand(2, 3, 32, 32) * 2 - 1)
    rng, students = np.random.default_rng(1), []
    for _ in range(count):
        alive = random_alive(teacher, rng)
        masked = copy.deepcopy(network)
        mask_(teacher.graph, masked, alive)
        students.append(extract(teacher.graph, masked, alive).eval())
    return students


@torch.no_grad()
def assert_same(loaded: torch.nn.Module, student: torch.nn.Module) -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(loaded(x), student(x))
    slopes = [m for network in (loaded, student) for m in network.modules() if isinstance(m, torch.nn.PReLU)]
    assert all(module.num_parameters == len(module.weight) for module in slopes)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    for name, layer in slim_layers(student).items():
        other = slim_layers(loaded)[name]
        assert other.weight.shape == layer.weight.shape and other.num_groups == layer.num_groups
        for kind in ("input", "weight"):
            mine, others = getattr(layer, f"{kind}_quantizer"), getattr(other, f"{kind}_quantizer")
            assert (mine is None) == (others is None)
            if mine is not None:
                assert (mine.bits, mine.low, mine.high) == (others.bits, others.low, others.high)
                assert torch.equal(mine.step, others.step)
        mine, others = (output_module(network, name).output_quantizer for network in (student, loaded))
        assert (mine is None) == (others is None)
        if mine is not None:
            assert torch.equal(mine.step, others.step) and torch.equal(mine.zero, others.zero)


@pytest.mark.parametrize("settings", [BITS, SlimmingSettings(weight_bits=32, activation_bits=32)], ids=["4", "float"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.name} {a.norm}")
def test_students_of_every_architecture_come_back(
    architecture: Architecture, settings: SlimmingSettings, tmp_path: Path
) -> None:
    teacher = Teacher(randomised(lambda: build(architecture)), 32)
    for student in random_students(teacher, settings):
        save_student(tmp_path / "s.safetensors", student, architecture)
        assert_same(load_student(tmp_path / "s.safetensors"), student)


@pytest.mark.parametrize("settings", [BITS, SlimmingSettings(weight_bits=32, activation_bits=32)], ids=["4", "float"])
@pytest.mark.parametrize("name", OWN)
def test_students_of_ones_own_generators_come_back(name: str, settings: SlimmingSettings, tmp_path: Path) -> None:
    generator = randomised(OWN[name])
    before = copy.deepcopy(generator.state_dict())
    for number, student in enumerate(random_students(Teacher(generator, 32), settings)):
        files = [tmp_path / f"{number}-{copied}.safetensors" for copied in (0, 1)]
        for file in files:
            save_student(file, student, None)
        assert files[0].read_bytes() == files[1].read_bytes()
        assert_same(load_student(files[0], generator), student)
        norms = [m for m in student.modules() if isinstance(m, SlimGroupNorm)]
        assert name != "depthwise" or any(len(set(norm.sizes)) > 1 or len(norm.sizes) < 4 for norm in norms)
    assert all(torch.equal(before[key], tensor) for key, tensor in generator.state_dict().items())


def test_a_student_of_ones_own_needs_its_generator(tmp_path: Path) -> None:
    file = tmp_path / "s.safetensors"
    save_student(file, random_students(Teacher(randomised(Transposed), 32), BITS, 1)[0], None)
    with pytest.raises(CheckpointError, match="of one's own; pass that generator too"):
        load_student(file)
    for other in (Skips(), torch.nn.Identity(), build(SMALL)):
        with pytest.raises(CheckpointError, match="does not fit its generator") as caught:
            load_student(file, other)
        assert str(file) in str(caught.value)


def entries(described: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything is in nested dicts and lists."""
    inside = described.items() if isinstance(described, dict) else enumerate(described)
    for key, value in inside if isinstance(described, (dict, list)) else ():
        yield (*place, key)
        if isinstance(value, (dict, list)):
            yield from entries(value, (*place, key))


def _by_hand(file: Path, content: bytes) -> None:
    save_file({"packed": torch.tensor(list(content), dtype=torch.uint8)}, file, {"student": "gs-search student 2"})


def test_damaged_descriptions_are_refused_in_one_line(tmp_path: Path) -> None:
    generator, file = randomised(Depthwise), tmp_path / "s.safetensors"
    save_student(file, random_students(Teacher(generator, 32), BITS, 1)[0], None)
    described = decode(file)[1]
    opened = zlib.decompressobj()
    described["tensors"] = json.loads(opened.decompress(load_file(file)["packed"].numpy()))["tensors"]
    texts = ["x", "[]", "null", "1", "{}", json.dumps(described)[:-1]]
    for place in entries(described):
        for value in (None, "x", 1000, [], {}):
            changed = copy.deepcopy(described)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            texts.append(json.dumps(changed))
    refused = 0
    for text in texts[:: 1 + len(texts) // 150]:
        _by_hand(file, zlib.compress(text.encode()) + opened.unused_data)
        try:
            load_student(file, generator)
        except CheckpointError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 80


def test_tensors_of_another_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    generator, file = randomised(Depthwise), tmp_path / "s.safetensors"
    tensors = save_student(file, random_students(Teacher(generator, 32), BITS, 1)[0], None)
    described = decode(file)[1]
    for name in tensors:
        file.write_bytes(encode({**tensors, name: torch.cat([tensors[name]] * 3)}, described))
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            load_student(file, generator)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_student(path, random_teacher().student()[0], SMALL)
    return path


def test_a_truncated_student_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_student(file)


def test_a_student_with_a_missing_tensor_is_refused(file: Path) -> None:
    tensors, described = decode(file)
    del tensors["stem.2.bias"]
    file.write_bytes(encode(tensors, described))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_student(file)


def test_content_that_does_not_fit_its_description_is_refused(file: Path) -> None:
    blob = load_file(file)["packed"].numpy().tobytes()
    description = zlib.compress(json.dumps({"tensors": []}).encode())
    for content, told in {
        blob[:-1]: "cut off", blob + b"x": "1 bytes are left over", blob[:100]: "no end", b"": "no end",
        b"x" + blob: "incorrect header", description: "pass that generator",
        zlib.compress(bytes(1 << 25)): "no end",
    }.items():  # fmt: skip
        _by_hand(file, content)
        with pytest.raises(CheckpointError, match=told):
            load_student(file)


def test_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    """A tensor each, and rows of layers; as every version wrote them before."""
    file = tmp_path / "s.safetensors"
    for architecture in ARCHITECTURES:
        for student in random_students(Teacher(randomised(lambda: build(architecture)), 32), BITS, 1):  # noqa: B023
            tensors = save_student(file, student, architecture)
            described = decode(file)[1]
            columns = described["layers"]
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            described |= {"format": "gs-search student 1", "layers": rows}
            save_file(tensors, file, {"student": json.dumps(described)})
            assert_same(load_student(file), student)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_small_student_is_hardly_more_than_its_weights(bits: int, tmp_path: Path) -> None:
    """10,000 parameters in twelve layers; what the file says of them is at most a tenth."""
    architecture, file = Architecture("cyclegan_resnet", 3, 3), tmp_path / "s.safetensors"
    teacher = Teacher(randomised(lambda: build(architecture)), 32)
    network, _ = teacher.student("raw")
    settings = SlimmingSettings(weight_bits=bits, activation_bits=8)
    attach_quantizers(teacher.graph, network, settings, torch.rand(2, 3, 32, 32) * 2 - 1)
    tensors = save_student(file, network, architecture)
    assert 9_000 < sum(layer.weight.numel() for layer in slim_layers(network).values()) < 11_000
    packed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert packed < file.stat().st_size <= 1.1 * packed
    assert student_mb(network, architecture) == file.stat().st_size / 1e6


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors", {"x": json.dumps(1)})
    with pytest.raises(CheckpointError, match="not a student"):
        load_student(tmp_path / "other.safetensors")
    save_file({"packed": torch.zeros(2)}, tmp_path / "later.safetensors", {"student": "gs-search student 3"})
    with pytest.raises(CheckpointError, match="of this version .format .gs-search student 3"):
        load_student(tmp_path / "later.safetensors")


def test_a_student_is_no_teacher(file: Path) -> None:
    with pytest.raises(CheckpointError, match="a student that gs-search has slimmed"):
        load_generator(file)
