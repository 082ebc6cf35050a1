"""What notes say, against figures made by hand; and what they leave to their user."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gs_search.dashboard.notes import _code, is_untouched, merged, study_note, trial_note
from gs_search.results.front import front_document
from gs_search.results.record import Baselines, TrialRecord
from gs_search.results.run_folder import RunFolder
from tests.synthetic_run import baselines

RECORD: dict[str, Any] = {
    "number": 7,
    "state": "COMPLETE",
    "objectives": {"fid": 71.45, "gflops": 0.20908, "size_mb": 0.11308},
    "kid": 0.03,
    "psnr_to_teacher": 28.04,
    "latency_ms": 4.26,
    "layers": [
        {"name": "a", "group": "stem", "width": 8, "full_width": 16, "weight_bits": 8, "activation_bits": 32},
        {"name": "b", "group": "body", "width": 10, "full_width": 64, "weight_bits": 4, "activation_bits": 8},
        {"name": "c", "group": "body", "width": 22, "full_width": 64, "weight_bits": 6, "activation_bits": 8},
        {"name": "d", "group": "head", "width": 3, "full_width": 3, "weight_bits": 8, "activation_bits": 8},
    ],
    "parity": {"max_abs_difference": 3.1e-13, "code_mismatches": 0, "codes": 4096, "pictures": 2},
    "seconds": 29.9,
    "steps": 250,
    "peak_memory_mb": 1363.5,
    "params": 242725,
}


def note(record: dict[str, Any], state: str = "COMPLETE", **more: Any) -> str:
    options: dict[str, Any] = {"folder": "runs/my study", "baselines": Baselines.from_json(baselines()), "violated": {}}
    options |= {"cause": record.get("cause"), "message": record.get("message")} | more
    ended = (
        TrialRecord.from_json({"number": 7, "state": state} | record) if state not in ("RUNNING", "WAITING") else None
    )
    return trial_note(7, state, ended, **options)


def rows(text: str) -> dict[str, list[str]]:
    """Rows of all tables by their first cell."""
    found = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in found}


def test_a_finished_trial() -> None:
    text = note(RECORD)
    table = rows(text)
    assert table["FID"] == ["71.5", "61.4", "+10.1, noise ± 1.9"]
    assert table["GFLOPs a picture"] == ["0.2091", "0.4181", "50.0% of it"]
    assert table["size, MB"] == ["0.1131", "1.131", "10.0% of it"]
    assert table["KID"][:2] == ["0.0300", "0.0213"]
    assert table["PSNR to the teacher, dB"] == ["28.0", "-", "the input as it is: 16.2"]
    assert table["stem"] == ["8 of 16", "50%", "8", "32"]
    assert table["body"] == ["32 of 128", "25%", "4/6", "8"]
    assert "3.1e-13 in 2 pictures, in 0 quantizer codes" in text
    assert "30 s, 250 steps, 1364 MB of memory, 242 725 parameters" in text
    assert "gs-search retrain 'runs/my study' --trial 7" in text
    assert "Infeasible" not in text and "http" not in text and "](" not in text


def test_without_a_teacher_or_layers() -> None:
    bare = {"objectives": RECORD["objectives"]}
    text = note(bare, baselines=None)
    assert rows(text)["FID"] == ["71.5", "-", ""]
    assert note({}, "WAITING", baselines=None) == "**Queued**."


def test_an_infeasible_one_names_what_it_misses() -> None:
    text = note(RECORD, violated={"max_gflops": 0.0453, "max_mb": -0.2})
    assert "**Infeasible**: misses `max_gflops` by 4.5%." in text and "max_mb" not in text


def test_endings_without_a_student() -> None:
    rung = {"step": 0, "psnr_to_teacher": 17.73, "gflops": 0.0241, "size_mb": 0.0288, "seconds": 3.0}
    stopped = note({"cause": "dominated", "message": "trial 2 is nearer", "rungs": [rung]}, "PRUNED")
    assert stopped.startswith("**Stopped early** (dominated).\n\n`trial 2 is nearer`")
    assert "At step 0: 17.7 dB to the teacher, 0.0241 GFLOPs, 0.0288 MB." in stopped
    failed = note({"cause": "exception", "message": "KeyError: 'body.0'"}, "FAIL")
    assert failed == "**Failed** (exception).\n\n`KeyError: 'body.0'`"
    running = note({}, "RUNNING", progress={"step": 40, "steps": 80, "psnr_to_teacher": 30.18})
    assert running == "**Running**.\n\nStep 40 of 80, 30.2 dB to the teacher."
    again = note(RECORD | {"duplicate_of": 3, "warm_start": "first:12"})
    assert "The same point as trial 3" in again and "`first:12`" in again


@given(st.text())
def test_a_message_stays_a_message(message: str) -> None:
    """Whatever it holds, it is one code span: no Markdown, no HTML, no second line. By CommonMark's rule."""
    shown = _code(message)
    assert "\n" not in shown and "\r" not in shown
    fence = re.match("`+", shown)
    assert fence is not None
    if words := " ".join(message.split()):
        inside = shown[len(fence[0]) : -len(fence[0])]
        assert shown.startswith(fence[0]) and shown.endswith(fence[0])
        assert inside.strip(" ") == words or "`" in words
        if words[0] != "`" and words[-1] != "`":
            assert fence[0] not in re.findall("`+", words)
            assert inside.strip() == words


def test_own_words_stay() -> None:
    first = merged("", "one")
    assert is_untouched(first) and "one" in first
    assert merged(first, "one") == first
    assert merged(first, "two") == first.replace("one", "two")
    own = f"Looks good.\n\n{first}\n\nShip it."
    assert not is_untouched(own)
    renewed = merged(own, "two")
    assert renewed.startswith("Looks good.\n\n") and renewed.endswith("\n\nShip it.")
    assert "two" in renewed and "one" not in renewed
    for alone in ("My note.", first.replace("up to here", "gone"), "x" + first.replace("from here", "gone")):
        assert merged(alone, "two") == alone


def test_the_study(original: RunFolder) -> None:
    document = front_document(original)
    pick = {"trial": document["front"][0]["number"], "why": ["It is small.", "It will do."]}
    text = study_note(document, folder="runs/q", endings={"failed": 2, "on the front": 5}, pick=pick)
    table = rows(text)
    for member in document["front"]:
        marks = ["knee"] * (member["number"] == document["knee"]) + ["picked"] * (member["number"] == pick["trial"])
        first = f"**{member['number']}** {', '.join(marks)}" if marks else str(member["number"])
        assert table[first][0] == f"{member['objectives']['fid']:.1f}"
    assert table["teacher"][:2] == ["61.4", "0.4181"] and table["input as it is"][0] == "182.6"
    assert f"**Picked**: trial {pick['trial']}. It is small. It will do." in text
    assert f"hypervolume {document['hypervolume']:.4f}" in text
    assert "noise is 1.9" in text and "max_gflops 0.2" in text
    assert "`100` pictures of the split `val`" in text and document["protocol"]["id"] in text
    assert "2 failed" in text
    assert "http" not in text and "](" not in text


def test_a_long_front_is_cut(original: RunFolder) -> None:
    document = front_document(original)
    document["front"] = [document["front"][0] | {"number": number} for number in range(100, 300)]
    text = study_note(document, folder="r", endings={}, pick=None)
    assert "and 140 more" in text and "| 159 |" in text and "| 160 |" not in text
