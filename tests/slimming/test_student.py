"""Packed files: bits in, the same bits out; hostile files refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from gs_search.errors import CheckpointError
from gs_search.networks import Architecture
from gs_search.settings import SlimmingSettings
from gs_search.slimming import load_student, record_targets, save_student, slim
from gs_search.slimming.student import pack_codes, unpack_codes

from .lessons import RandomLessons, random_teacher

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
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    del tensors["stem.2.bias"]
    save_file(tensors, file, metadata)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_student(file)


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors", {"x": json.dumps(1)})
    with pytest.raises(CheckpointError, match="not a student"):
        load_student(tmp_path / "other.safetensors")
