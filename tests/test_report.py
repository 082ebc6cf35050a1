"""The report without a browser: what stands in the page, against the files that it was written from."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from gs_search.errors import BadInput, NothingFeasible
from gs_search.front import dominates
from gs_search.report import write_report
from gs_search.report.content import Content, gather
from gs_search.report.figures import front_pair, front_space
from gs_search.report.labels import place_labels
from gs_search.report.pictures import read_samples
from gs_search.report.theme import DARK, LIGHT
from gs_search.runfolder import RunFolder
from tests.synthetic_run import COLUMNS, GUTTER, TEACHER, write_run


class Page(HTMLParser):
    """Tags with their attributes, the visible text, and the text of each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def content(folder: RunFolder) -> Content:
    return gather(folder)


@pytest.fixture(scope="module")
def html(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture
def small(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", trials=3, image_px=32, failures=False)


def change(folder: RunFolder, number: int, **changes: Any) -> None:
    path = folder.trial(number) / "result.json"
    folder.write_json(path, folder.read_json(path) | changes)


def objectives(folder: RunFolder) -> dict[int, list[float]]:
    return {r["number"]: list(r["objectives"].values()) for r in folder.results() if r["objectives"]}


def test_the_front_is_what_nothing_dominates(folder: RunFolder, content: Content) -> None:
    points = objectives(folder)
    expected = {n for n, a in points.items() if not any(dominates(b, a) for b in points.values())}
    assert {student.number for student in content.front} == expected
    assert [s.gflops for s in content.students] == sorted(s.gflops for s in content.students)
    assert sum(student.is_knee for student in content.students) == 1
    assert all(student.on_front for student in content.students if student.is_knee)


def test_counts_and_endings(content: Content, page: Page) -> None:
    assert content.counts == {"COMPLETE": 21, "PRUNED": 1, "FAIL": 2}
    assert [(ending.number, ending.cause) for ending in content.endings] == [
        (5, "nan"),
        (11, "dominated"),
        (17, "killed"),
    ]
    assert "24 trials: 21 finished, 1 stopped early, 2 failed." in page.words()
    assert "the loss became NaN at step 12 of 80" in page.words()


def test_faithful_is_the_smallest_within_the_noise(content: Content) -> None:
    limit = TEACHER["fid"] + 2 * 1.9
    inside = [student for student in content.front if student.fid <= limit]
    assert content.faithful is not None
    assert content.faithful.size_mb == min(student.size_mb for student in inside)


def test_bits_skip_layers_that_vanished(small: RunFolder) -> None:
    layers = small.read_json(small.trial(0) / "result.json")["layers"]
    for layer in layers:
        if layer["group"] == "body":
            layer["weight_bits"] = 4
    layers[3] |= {"width": 0, "weight_bits": 32}
    change(small, 0, layers=layers)
    student = next(student for student in gather(small).students if student.number == 0)
    assert student.bits("weight_bits") == "8-8-4-8-8"
    assert student.bits("activation_bits") == "8"
    kept, full = sum(layer["width"] for layer in layers), sum(layer["full_width"] for layer in layers)
    assert student.width_share == pytest.approx(kept / full)


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]}>"
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies and "default-src 'none'" in str(policies[0]) and "connect-src" not in str(policies[0])
    style = html[html.index("<style>") : html.index("</style>")]
    assert "@import" not in style and "url(" not in style
    assert [tag for tag, _ in page.tags].count("script") == 3


def test_the_page_holds_plotly_and_valid_figures(html: str, content: Content) -> None:
    assert "plotly.js v" in html
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    assert found
    figures = json.loads(found[1])
    assert list(figures) == ["front-gflops", "front-size", "front-space"]
    for themes in figures.values():
        assert list(themes) == ["light", "dark"]
        for figure in themes.values():
            go.Figure(figure)  # Plotly refuses what it does not know
    assert figures["front-gflops"]["light"] == json.loads(json.dumps(front_pair(content, "gflops", LIGHT)))


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
    drops = front_space(content, DARK)["data"][1]
    assert len(drops["x"]) == 3 * len(content.front)


def test_a_wreck_does_not_flatten_the_plot(small: RunFolder) -> None:
    usual = small.read_json(small.trial(0) / "result.json")["objectives"]
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


def test_rows_of_the_table_match_the_results(folder: RunFolder, html: str) -> None:
    points = objectives(folder)
    rows = re.findall(r'<tr id="row-(\d+)"(.*?)>(.*?)</tr>', html, re.S)
    assert {int(number) for number, _, _ in rows} == set(points)
    for number, _, row in rows:
        values = re.findall(r'<td data-value="(.*?)"', row)
        fid, _, gflops, fewer, size_mb, smaller = map(float, values[:6])
        assert [fid, gflops, size_mb] == points[int(number)]
        assert fewer == pytest.approx(TEACHER["gflops"] / gflops) and smaller == pytest.approx(
            TEACHER["size_mb"] / size_mb
        )


def test_pictures_are_the_rows_of_the_samples(folder: RunFolder, content: Content, page: Page) -> None:
    sources = {a.get("alt"): a["src"] for tag, a in page.tags if tag == "img"}
    with Image.open(folder.trial(content.front[0].number) / "samples.png") as image:
        grid = np.asarray(image.convert("RGB"))
    expected = {"Input pictures": 0, "The teacher’s pictures": 1}
    expected[f"Pictures by the student of trial {content.front[0].number}"] = 2
    for name, row in expected.items():
        head, data = str(sources[name]).split(",", 1)
        assert head == "data:image/png;base64"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        np.testing.assert_array_equal(shown, grid[row * (64 + GUTTER) : row * (64 + GUTTER) + 64])
    assert content.samples.columns == COLUMNS and content.samples.lossless
    assert set(content.samples.students) == {student.number for student in content.front}


def test_large_pictures_become_jpeg_and_say_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3 * 128 + 2 * GUTTER, 8 * 128 + 7 * GUTTER, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "samples.png")
    found = read_samples({4: tmp_path / "samples.png"}, 128)
    assert not found.lossless and found.students[4].startswith("data:image/jpeg;base64,")
    assert found.columns == 8


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "one picture"])
def test_a_trial_without_readable_samples_stays_in_the_report(small: RunFolder, damage: str) -> None:
    number = gather(small).front[0].number
    path = small.trial(number) / "samples.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("no picture")
    elif damage == "one picture":
        Image.new("RGB", (64, 64)).save(path)
    assert number not in gather(small).samples.students
    html = write_report(small).read_text(encoding="utf-8")
    assert f'id="row-{number}"' in html and "samples.png" in Page(html).words()


def test_text_from_the_folder_cannot_run(small: RunFolder) -> None:
    attack = "</script><script>alert(1)</script>"
    change(small, 2, state="FAIL", cause="exception", message=attack, objectives=None, point={attack: attack})
    record = small.read_json(small.baselines)
    record["protocol"]["reference"] = attack
    record["noise"]["method"] = attack
    small.write_json(small.baselines, record)
    small.study_yaml.write_text(f"# {attack}\n")
    html = write_report(small).read_text(encoding="utf-8")
    assert attack not in html and html.count("&lt;script&gt;alert(1)") >= 4


def test_nothing_of_the_machine_is_told(folder: RunFolder, html: str) -> None:
    assert str(folder.path) not in html and str(Path(__file__).parents[1]) not in html
    assert str(folder.provenance()["host"]) not in Page(html).words().split()


def test_what_was_not_measured_is_a_dash(small: RunFolder) -> None:
    record = small.read_json(small.baselines)
    record |= {"noise": {}, "input": {"fid": 180.0}}
    small.write_json(small.baselines, record)
    for number in range(3):
        change(small, number, kid=None, psnr_to_teacher=None, latency_ms=None, parity=None, layers=[])
    html = write_report(small).read_text(encoding="utf-8")
    assert "not measured" in html and "nan" not in Page(html).words().lower().split()
    json.loads(re.search(r'id="figures">(.*?)</script>', html, re.S)[1])  # type: ignore[index]


def test_one_finished_trial_makes_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1, image_px=32)
    words = Page(write_report(folder).read_text(encoding="utf-8")).words()
    assert "1 trial: 1 finished. 1 student makes the front." in words


def test_nothing_finished_is_not_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1)
    change(folder, 0, state="FAIL", cause="nan", objectives=None)
    with pytest.raises(NothingFeasible, match="1 nan"):
        write_report(folder)
    assert not folder.report_html.exists()


def test_two_protocols_are_refused(small: RunFolder) -> None:
    change(small, 1, protocol="another")
    with pytest.raises(BadInput, match="trial 1 was measured by protocol another"):
        write_report(small)


def test_a_result_without_its_numbers_is_named(small: RunFolder) -> None:
    record = small.read_json(small.baselines)
    del record["teacher"]["fid"]
    small.write_json(small.baselines, record)
    with pytest.raises(BadInput, match="'fid'"):
        write_report(small)


def test_a_failure_leaves_the_old_report(small: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report(small).read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(small)
    monkeypatch.undo()
    assert small.report_html.read_bytes() == old
    assert sorted(path.name for path in small.path.iterdir() if "report" in path.name) == ["report.html"]


def test_labels_keep_apart() -> None:
    sides = place_labels([(0.5, 0.5), (0.52, 0.5), (0.48, 0.5)], ["10", "11", "12"])
    assert len(set(sides)) == 3
    assert place_labels([(0.5, 0.5)], ["7"]) == ["top center"]
    assert place_labels([(0.5, 0.999)], ["7"]) == ["bottom center"]
    assert place_labels([], []) == []


def test_text_colours_can_be_read() -> None:
    """WCAG AA: 4.5 to 1 for text on cards, in both themes."""
    style = (Path(__file__).parents[1] / "gs_search" / "report" / "report.css").read_text(encoding="utf-8")

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    colours = re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    for theme in (1, 2):
        shades = {colour[0]: luminance(colour[theme]) for colour in colours}
        for name in ("text", "soft", "front", "teacher", "input", "warning"):
            for ground in ("card", "page", "tint"):
                dim, bright = sorted((shades[name], shades[ground]))
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, ground)
