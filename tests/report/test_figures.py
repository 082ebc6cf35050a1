"""The report's figures, without a browser: what they draw, against the files that they were made from."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from gs_search.report.content import Content, gather
from gs_search.report.figures import (
    cost_pair,
    front_pair,
    front_space,
    hypervolume_against_cost,
    importance_bars,
    layer_bits,
    layer_widths,
    learning_curve,
    page_figures,
    rung_distances,
    worker_timeline,
)
from gs_search.report.labels import place_labels
from gs_search.report.layer_figures import shown_at_first
from gs_search.report.theme import DARK, LIGHT
from gs_search.results.pareto import dominates
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import TEACHER, change, write_run

Figure = dict[str, Any]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return gather(write_run(tmp_path_factory.mktemp("figures") / "run", image_px=32))


def traces_of(figure: Figure) -> dict[str, Figure]:
    return {trace["name"]: trace for trace in figure["data"] if "name" in trace}


def numbers_of(trace: Figure) -> list[int]:
    return [entry[0] for entry in trace["customdata"]]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("cost", ["gflops", "size_mb"])
def test_a_pair_shows_every_trial_and_both_baselines(content: Content, cost: Any, theme: Any) -> None:
    figure = front_pair(content, cost, theme)
    traces = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    shown = {
        number[0]: (x, y)
        for name in ("front", "dominated")
        for number, x, y in zip(*(traces[name][key] for key in ("customdata", "x", "y")), strict=True)
    }
    assert shown == {s.number: (getattr(s, cost), s.fid) for s in content.students}
    assert traces["teacher"]["x"] == [TEACHER[cost]] and traces["teacher"]["y"] == [TEACHER["fid"]]
    assert set(traces["untranslated input"]["y"]) == {182.6}
    band = traces["teacher ± 3.8: noise of FID"]["y"]
    assert (min(band), max(band)) == pytest.approx((TEACHER["fid"] - 3.8, TEACHER["fid"] + 3.8))
    assert "MB" in figure["layout"]["xaxis"]["title"]["text"] or "GFLOPs" in figure["layout"]["xaxis"]["title"]["text"]
    assert traces["front"]["marker"]["color"] == theme.front


def test_the_staircase_is_the_best_fid_at_a_cost(content: Content) -> None:
    figure = front_pair(content, "gflops", LIGHT)
    stairs = next(trace for trace in figure["data"] if trace.get("line", {}).get("shape") == "hv")
    for x, y in zip(stairs["x"], stairs["y"], strict=True):
        assert y == min(student.fid for student in content.students if student.gflops <= x)
    assert stairs["y"] == sorted(stairs["y"], reverse=True)


def test_space_has_three_named_axes_and_drop_lines(content: Content) -> None:
    scene = front_space(content, DARK)["layout"]["scene"]
    titles = [scene[axis]["title"]["text"] for axis in ("xaxis", "yaxis", "zaxis")]
    assert titles == ["GFLOPs", "size, MB", "FID"]
    drops = front_space(content, DARK)["data"][0]
    assert len(drops["x"]) == 3 * len(content.front)


def test_a_wreck_does_not_flatten_the_plot(small: RunFolder) -> None:
    usual = read_json(small.trial(0) / "result.json")["objectives"]
    change(small, 1, objectives=usual | {"fid": 4000.0, "gflops": usual["gflops"] * 1.01})
    change(small, 2, objectives=usual | {"fid": usual["fid"] + 1.0})
    figure = front_pair(gather(small), "gflops", LIGHT)
    top = figure["layout"]["yaxis"]["range"][1]
    edge = next(trace for trace in figure["data"] if trace.get("name") == "dominated, off the scale")
    assert top < 250 and edge["y"][0] < top and "FID 4000.0" in edge["text"][0]


def test_hovering_tells_the_numbers(content: Content) -> None:
    student = content.front[0]
    figure = front_pair(content, "gflops", LIGHT)
    text = next(trace for trace in figure["data"] if trace.get("name") == "front")["text"][0]
    for told in (
        f"trial {student.number}",
        f"FID {student.fid:.1f}",
        "GFLOPs",
        "MB",
        "KID",
        "dB",
        "ms",
        "bits",
    ):
        assert told in text


def test_labels_keep_apart() -> None:
    sides = place_labels([(0.5, 0.5), (0.52, 0.5), (0.48, 0.5)], ["10", "11", "12"])
    assert len(set(sides)) == 3
    assert place_labels([(0.5, 0.5)], ["7"]) == ["top center"]
    assert place_labels([(0.5, 0.999)], ["7"]) == ["bottom center"]
    assert place_labels([], []) == []


def test_of_many_labels_those_that_would_lie_on_others_are_left_out() -> None:
    crowded = place_labels([(0.5, 0.5)] * 40, ["100"] * 40)
    assert crowded[0] is not None and crowded.count(None) > 20
    assert None not in place_labels([(0.5, 0.5)] * 30, ["100"] * 30)


def test_every_figure_is_one_that_plotly_draws_in_both_themes(content: Content) -> None:
    for theme in (LIGHT, DARK):
        for figure in (
            cost_pair(content, theme),
            hypervolume_against_cost(content, theme),
            worker_timeline(content, theme),
        ):
            go.Figure(figure)
    light, dark = str(page_figures(content, LIGHT)), str(page_figures(content, DARK))
    for name in LIGHT.__dataclass_fields__:  # what the page does to turn one into the other
        light = light.replace(f"'{getattr(LIGHT, name)}'", f"'{getattr(DARK, name)}'")
    assert light == dark


def test_the_costs_stand_against_each_other_with_fid_as_colour(content: Content) -> None:
    traces = traces_of(cost_pair(content))
    front = traces["front"]
    assert [(x, y) for x, y in zip(front["x"], front["y"], strict=True)] == [
        (student.gflops, student.size_mb) for student in content.front
    ]
    assert front["marker"]["color"] == [student.fid for student in content.front]
    assert "FID" in front["marker"]["colorbar"]["title"]["text"]
    assert (traces["stopped early"]["x"], traces["stopped early"]["y"]) == ([0.0912], [0.0731])
    assert traces["teacher"]["x"] == [TEACHER["gflops"]] and traces["teacher"]["y"] == [TEACHER["size_mb"]]


def test_trials_without_a_fid_stand_at_the_edge_at_what_they_cost_or_asked_for(content: Content) -> None:
    figure = front_pair(content, "gflops")
    traces, (bottom, top) = traces_of(figure), figure["layout"]["yaxis"]["range"]
    asked = {
        e.number: e.point["target_gflops_ratio"] * TEACHER["gflops"] for e in content.endings if e.kind == "failed"
    }
    failed = traces["failed"]
    assert dict(zip(numbers_of(failed), failed["x"], strict=True)) == pytest.approx(asked)
    assert numbers_of(traces["stopped early"]) == [11] and traces["stopped early"]["x"] == [0.0912]
    assert all(bottom < y < bottom + 0.1 * (top - bottom) for y in failed["y"])
    assert "failed" not in traces_of(front_pair(content, "size_mb"))  # nothing is known of its size
    assert "&lt;SIGKILL&gt; &amp; left" in " ".join(failed["text"])


def test_limits_infeasible_students_and_duplicates_are_marked(small: RunFolder) -> None:
    text = small.resolved_yaml.read_text()
    first, second, third = (read_json(small.trial(n) / "result.json")["objectives"] for n in range(3))
    limit = sorted(record["gflops"] for record in (first, second, third))[1] * 1.0001
    small.resolved_yaml.write_text(text.replace("max_gflops: null", f"max_gflops: {limit}"))
    beyond = max(range(3), key=lambda number: (first, second, third)[number]["gflops"])
    twin = next(number for number in range(3) if number != beyond)
    record = read_json(small.trial(twin) / "result.json")
    write_json(small.trial(7) / "result.json", record | {"number": 7, "duplicate_of": twin})
    content = gather(small)
    traces = traces_of(front_pair(content, "gflops"))
    assert numbers_of(traces["infeasible"]) == [beyond] and traces["infeasible"]["marker"]["symbol"] == "square-open"
    assert numbers_of(traces["duplicate"]) == [7]
    assert traces[f"max_gflops {limit:.4g}"]["x"] == [limit, limit]
    assert content.kinds["infeasible"] == content.kinds["duplicate"] == 1
    told = {student.number: student.told for student in content.students}
    assert told[7] == f"same point as trial {twin}" and told[beyond].startswith("max_gflops by ")
    assert not any(student.on_front for student in content.students if student.number in (7, beyond))
    go.Figure(front_space(content))


@pytest.mark.parametrize(("gap", "tied"), [(1.0, True), (40.0, False)])
def test_neighbours_within_the_noise_are_drawn_as_a_tie(small: RunFolder, gap: float, tied: bool) -> None:
    for number, (fid, gflops) in enumerate([(80.0, 0.1), (80.0 - gap, 0.2), (10.0, 0.3)]):
        change(small, number, objectives={"fid": fid, "gflops": gflops, "size_mb": gflops})
    content = gather(small)
    assert content.tie_margin == pytest.approx(1.959964 * 2**0.5 * 1.9)
    tie = traces_of(front_pair(content, "gflops")).get("tied within the noise")
    assert (tie is not None) == tied
    if tie:
        assert (tie["x"], tie["y"]) == ([0.1, 0.2, None], [80.0, 79.0, None])


def test_other_seeds_have_a_mean_and_an_interval(small: RunFolder) -> None:
    member = gather(small).front[0]
    record = read_json(small.trial(member.number) / "result.json")
    fids = [member.fid + shift for shift in (1.0, 2.0, 6.0)]
    for k, fid in enumerate(fids, start=1):
        place = small.trial(member.number) / "again" / str(k)
        write_json(place / "result.json", record | {"objectives": record["objectives"] | {"fid": fid}})
        write_json(place / "subsets.json", {"fid": [fid - 1, fid, fid + 2]})
    content = gather(small)
    again = next(student.again for student in content.front if student.number == member.number)
    assert again is not None and again.seeds == 3 and again.mean == pytest.approx(member.fid + 3.0)
    traces = traces_of(front_pair(content, "gflops"))
    half = 4.302653 * 7**0.5 / 3**0.5  # Student's t of two degrees of freedom; the variance of 1, 2, 6 is 7
    assert traces["interval of other seeds"]["y"][:2] == pytest.approx([again.mean - half, again.mean + half])
    assert traces["other seeds"]["y"] == [again.mean] and traces["other seeds"]["x"] == [member.gflops]
    shown = next(text for text, number in zip(traces["front"]["text"], numbers_of(traces["front"]), strict=True)
                 if number == member.number)  # fmt: skip
    assert "with 3 other seeds" in shown


def test_hypervolume_ends_where_the_front_document_says(content: Content) -> None:
    figure = hypervolume_against_cost(content)
    line = figure["data"][0]
    assert line["y"][-1] == pytest.approx(100 * content.hypervolume)
    assert line["x"] == sorted(line["x"]) and line["y"] == sorted(line["y"])
    spent = sum(trial.seconds or 0 for trial in content.trials)
    assert line["x"][-1] == pytest.approx(spent / 60) and "minutes" in figure["layout"]["xaxis"]["title"]["text"]
    marks = numbers_of(traces_of(figure)["the front gained"]) + numbers_of(traces_of(figure)["no gain"])
    assert sorted(marks) == list(range(24))


def test_the_timeline_has_a_bar_a_timed_trial_and_no_two_at_once_on_a_worker(content: Content) -> None:
    figure = worker_timeline(content)
    bars = [bar for trace in figure["data"] for bar in zip(trace["y"], trace["base"], trace["x"], strict=True)]
    timed = [trial for trial in content.trials if trial.seconds]
    assert len(bars) == len(timed) == 22
    for worker in {name for name, _, _ in bars}:
        own = sorted((start, start + length) for name, start, length in bars if name == worker)
        assert all(end <= start + 2 / 60 for (_, end), (start, _) in zip(own, own[1:], strict=False))
    assert traces_of(figure)["stopped early"]["marker"]["pattern"]["shape"] == "/"


def test_curves_show_the_front_and_the_others_apart(content: Content) -> None:
    traces = traces_of(learning_curve(content, "pixel"))
    members = {student.number for student in content.front}
    knee = content.knee.number
    assert set(numbers_of(traces["knee"])) == {knee}
    assert set(numbers_of(traces["front"])) == members - {knee}
    assert set(numbers_of(traces["other students"])) == {s.number for s in content.students} - members
    assert traces["knee"]["x"] == [*range(10, 81, 10), None]


def test_rungs_lead_from_the_repair_to_the_end(content: Content) -> None:
    traces = traces_of(rung_distances(content))
    student = content.front[0]
    assert traces["front"]["x"][:3] == [0, 80, None]
    assert traces["front"]["y"][:2] == [student.rungs[0].psnr_to_teacher, student.psnr]
    assert (traces["stopped"]["x"], traces["stopped"]["y"]) == ([0, None], [17.25, None])


def test_layers_of_two_students_stand_before_the_teacher(content: Content) -> None:
    students = shown_at_first(content)
    assert [student.number for student in students][0] == content.knee.number and len(students) == 2
    widths, bits = layer_widths(students), layer_bits(students)
    full = [layer.full_width for layer in students[0].layers]
    assert widths["data"][0]["x"] == full and bits["data"][0]["x"] == [32] * len(full)
    for trace, student in zip(widths["data"][1:], students, strict=True):
        assert trace["x"] == [layer.width for layer in student.layers]
        assert trace["y"] == [layer.name for layer in student.layers]
    for trace, student in zip(bits["data"][1:], students, strict=True):
        assert trace["x"] == [layer.weight_bits for layer in student.layers]
    gone = layer_bits([students[0]])["data"]
    assert gone[2]["x"] == [] and len(gone) == 3  # the page puts a second student there


def test_importance_is_hollow_where_chance_gives_as_much(content: Content) -> None:
    figure = importance_bars(content, "gflops")
    bars, chance = figure["data"]
    shares = dict(zip(bars["y"], bars["x"], strict=True))
    fills = dict(zip(bars["y"], bars["marker"]["color"], strict=True))
    assert sum(shares.values()) == pytest.approx(100)
    assert fills["target_gflops_ratio"] == LIGHT.front
    for name, limit in zip(chance["y"], chance["x"], strict=True):
        assert (fills[name] == LIGHT.front) == (shares[name] > limit)


def test_of_equals_dominance_decides_what_is_dominated(content: Content) -> None:
    values = {s.number: (s.fid, s.gflops, s.size_mb) for s in content.students}
    drawn = numbers_of(traces_of(front_pair(content, "size_mb"))["dominated"])
    assert set(drawn) == {n for n, a in values.items() if any(dominates(b, a) for b in values.values())}
