"""The report: one page that asks for nothing, escapes all, shows each atom, and is not lost."""

import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics.report.advice import ADVICE, advice
from reml_sae.diagnostics.report.cards import POINTS, co_activation
from reml_sae.diagnostics.report.geometry import Frame, mesh

HOSTILE = '</script><img src=x onerror=alert(1)> & "quotes"'
Z = planted_circles(160, 8, 2, noise_sd=0.05).Z * np.geomspace(0.5, 2.0, 160)[:, None]
LABELS = [f"{HOSTILE} {i}" for i in range(160)]


pytestmark = pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning",
                                        "ignore::reml_sae.errors.DataWarning")


@pytest.fixture(scope="module")
def model():
    return rs.SAEManifold(n_atoms=3, topology=["circle", "circle", "linear"], assignment="topk",
                          n_active=2, n_init=1, max_outer=3, noise="isotropic").fit(Z)


class Page(HTMLParser):
    """Ids, links, tags that were left open, and the data of a page."""

    VOID = ("meta", "input", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.open, self.tags, self.sources = [], [], [], [], []
        self.data, self.text = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in self.VOID:
            self.open.append((tag, found.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == ("script", "data"):
            self.data += text
        else:
            self.text.append(text)


def page_of(path):
    page = Page(path.read_text())
    assert not page.open, "every tag is closed"
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert not page.sources and "img" not in page.tags and page.tags.count("script") == 2
    return page, json.loads(page.data)


@pytest.fixture(scope="module")
def full(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    model.report(path, Z, LABELS, source=HOSTILE)
    return path


def test_a_page_with_rows_asks_for_nothing_and_escapes_all(full):
    page, data = page_of(full)
    text = full.read_text()
    assert HOSTILE not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text and any(HOSTILE in item for item in page.text)
    assert {card["atom"] for card in data["cards"]} == {0, 1, 2}
    shown = [item["label"] for card in data["cards"] for item in card["rows"]["items"]]
    assert shown and all(label.startswith(HOSTILE) for label in shown)


def test_rows_stand_where_they_are(full, model):
    """Projected by the axes that the card names, a point is its row without the other atoms."""
    _, data = page_of(full)
    card = next(card for card in data["cards"] if card["atom"] == 0)
    assert len(card["points"]) == len(card["row"]) <= POINTS
    codes, atom, rows = model.codes_, model.atoms_[0], np.array(card["row"])
    residual = (Z - model.reconstruct(codes))[rows]
    own = atom.curve(codes.coordinates[0][rows]) + residual / codes.assignments[rows, 0][:, None]
    np.testing.assert_allclose(card["points"], Frame.of(atom).project(own), rtol=1e-3, atol=1e-3)


def test_table_and_cards_stand_in_the_order_of_evidence(full, model):
    page, data = page_of(full)
    links = [link for link in page.links if link.startswith("#atom-")]
    order = [f"#atom-{k}" for k in np.argsort([-atom.evidence for atom in model.atoms_])]
    assert links[:3] == order
    assert [f"#atom-{card['atom']}" for card in data["cards"]] == order
    assert 'aria-sort="descending"><button type="button">evidence' in full.read_text()


def test_links_lead_to_the_sections(full):
    page, _ = page_of(full)
    assert [link for link in page.links if link.startswith("#section-")] == [
        f"#section-{name}" for name in (
            "atoms", "cards", "residuals", "noise", "checks", "trace", "summary")]


def test_the_time_is_that_of_the_whole_fit(full, model):
    assert model.search_.seconds > model.trace_[-1].seconds > 0.0
    text = full.read_text()
    assert f"{model.search_.seconds:.1f} s, last REML fit {model.trace_[-1].seconds:.1f} s" in text


def test_the_axes_are_those_of_the_curve(model):
    atom = model.atoms_[0]
    frame = Frame.of(atom, rank=8)
    curve = atom.curve(np.linspace(-np.pi, np.pi, 2000, endpoint=False))
    centred = curve - curve.mean(axis=0)
    sizes = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(frame.shares, (sizes / sizes.sum())[: len(frame.shares)], atol=1e-6)
    np.testing.assert_allclose(frame.centre, curve.mean(axis=0), atol=1e-8)


def test_a_flat_is_drawn_with_its_residual(full):
    _, data = page_of(full)
    card = next(card for card in data["cards"] if card["atom"] == 2)
    assert card["residual"] and len(card["axes"]) == 2
    assert np.ptp(np.array(card["points"])[:, 1]) > 0


def test_co_activation_is_the_cosine_of_use():
    users = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    first = co_activation(users)[0]
    assert [item["atom"] for item in first] == [1, 2]
    np.testing.assert_allclose([item["cosine"] for item in first], [2 / 3, 1 / 3**0.5], rtol=1e-3)


def test_a_page_without_rows_shows_curves_and_does_not_replace_one_with_rows(model, tmp_path):
    path = tmp_path / "report.html"
    model.report(path)
    _, data = page_of(path)
    assert data["residuals"] is None
    assert all(not card["points"] and card["lines"] for card in data["cards"])
    model.report(path, Z)
    before = path.read_bytes()
    with pytest.raises(rs.errors.InputError, match="shows rows"):
        model.report(path)
    assert path.read_bytes() == before
    model.report(path, force=True)
    assert path.read_bytes() != before


def test_input_is_checked(model, tmp_path):
    with pytest.raises(rs.errors.InputError, match="159 texts"):
        model.report(tmp_path / "r.html", Z, LABELS[1:])
    with pytest.raises(rs.errors.InputError, match="different rows"):
        model.report(tmp_path / "r.html", Z + 1.0)
    assert not list(tmp_path.iterdir())


def test_the_page_is_the_same_every_time(model, full, tmp_path):
    model.report(tmp_path / "again.html", Z, LABELS, source=HOSTILE)
    assert (tmp_path / "again.html").read_bytes() == full.read_bytes()


@pytest.mark.parametrize("shape", ["sphere", "torus", "cylinder", "mobius", "projective_plane",
                                   "plane", {"topology": "duchon", "dim": 2}])
def test_surfaces_have_a_mesh_on_them(shape):
    manifold = rs.manifolds.get_manifold(shape)
    for line in mesh(manifold):
        assert line.shape[1] == manifold.latent_dim
        assert np.isfinite(manifold.basis(line)).all()
        if manifold.latent_dim > manifold.intrinsic_dim:
            np.testing.assert_allclose(np.linalg.norm(line, axis=1), 1.0)
    assert mesh(manifold)


def test_every_check_asks_something_of_the_reader(model):
    for check in model.diagnostics_.checks:
        assert advice(check), check.name
    assert advice(replace(model.diagnostics_.checks[0], name="something new")) == ""
    assert all(text.endswith(".") for text in ADVICE.values())


def test_a_browser_draws_it(full, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no browser")
    drawn = ""
    for number in range(4):  # a busy machine may dump the page before it knows what is seen
        drawn = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu",
             "--virtual-time-budget=20000", "--window-size=1400,9000",
             f"--user-data-dir={tmp_path / str(number)}", "--dump-dom",
             full.as_uri()], capture_output=True, text=True, timeout=120).stdout
        if drawn.count("<circle") > 300:
            break
    assert drawn.count("<circle") > 300 and drawn.count("<svg") >= 12
    assert "<img" not in drawn and HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(
        ">", "&gt;") in drawn
