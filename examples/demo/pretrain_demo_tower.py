"""Stage 1 of the demo weights: a small CLIP vision tower learns the attributes of demo faces.

It sees real faces alone, no forgery and no label of one. The class token is asked who and what is in the
picture, the patch tokens what is where. So the tower has generic features, colour, parts, texture, sharpness,
as CLIP has for photographs, and forgeries are news to it.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from effort_finetune.core.progress import track
from examples.demo.studies import Studies, draw_studies

RESOLUTION, PATCH, WIDTH, LAYERS = 224, 28, 128, 4
GRID = RESOLUTION // PATCH
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
HELD_OUT = 320  # images


def _draw(span: tuple[int, int, int]) -> Studies:
    import cv2

    cv2.setNumThreads(1)
    return draw_studies(*span, resolution=RESOLUTION, patches=GRID)


def make_studies(seed: int, people: int, processes: int) -> Studies:
    """Draws the training pictures, four of each person, in parallel; the order does not depend on it."""
    spans = [(seed, first, min(first + 20, people)) for first in range(0, people, 20)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(track(pool.map(_draw, spans), desc="faces", total=len(spans), unit="chunk"))
    return Studies(
        *(np.concatenate([getattr(p, f) for p in parts]) for f in ("images", "attributes", "local"))
    )


def filter_bank(size: int, count: int, seed: int) -> Tensor:
    """Cosine filters over patches, [count, 3, size, size]: coarse ones in colour, fine ones in brightness.

    From random filters the tower would first have to find out that frequencies exist.
    """
    rng = np.random.default_rng(seed)
    cosines = np.cos(np.pi * (np.arange(size)[:, None] + 0.5) * np.arange(size)[None] / size)
    coarse = sorted(((i, j) for i in range(5) for j in range(5) if i + j < 5), key=sum)
    chosen = [(0, i, j) for i, j in coarse[:10]] + [(c, i, j) for c in (1, 2) for i, j in coarse[:6]]
    while len(chosen) < count:
        radius, angle = np.exp(rng.uniform(np.log(3), np.log(0.95 * size))), rng.uniform(0, np.pi / 2)
        candidate = (0, int(radius * np.cos(angle)), int(radius * np.sin(angle)))
        if candidate not in chosen:
            chosen.append(candidate)
    colours = np.array([[0.58, 0.58, 0.58], [0.7, 0.0, -0.7], [0.4, -0.8, 0.4]])  # grey, red-blue, green
    filters = [colours[c][:, None, None] * np.outer(cosines[:, i], cosines[:, j]) for c, i, j in chosen]
    return torch.from_numpy(np.stack(filters)).float()


def pixels(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] to CLIP's input [N, 3, H, W]."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def new_tower(images: np.ndarray, seed: int) -> CLIPVisionModel:
    """A tower of CLIP's architecture; ``images`` set the scale of its first filters."""
    torch.manual_seed(seed)
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            num_attention_heads=WIDTH // 64,
            num_hidden_layers=LAYERS,
            patch_size=PATCH,
            image_size=RESOLUTION,
            intermediate_size=4 * WIDTH,
        )
    )
    # transformers scales its initial weights for towers of CLIP's size; one this small needs larger ones.
    for name, parameter in tower.named_parameters():
        if "position_embedding" in name or "class_embedding" in name:
            nn.init.normal_(parameter, std=0.3)
        elif parameter.ndim == 2:
            nn.init.trunc_normal_(parameter, std=parameter.shape[1] ** -0.5)
    bank = filter_bank(PATCH, WIDTH, seed)
    with torch.no_grad():
        answers = nn.functional.conv2d(pixels(images), bank, stride=PATCH)
        patch_filters(tower).copy_(bank / answers.std((0, 2, 3)).view(-1, 1, 1, 1))
    return tower


def patch_filters(tower: nn.Module) -> nn.Parameter:
    """The patch embedding's weight; its place in the module differs between versions of transformers."""
    return next(p for name, p in tower.named_parameters() if name.endswith("patch_embedding.weight"))


def targets(studies: Studies) -> tuple[Tensor, Tensor]:
    """Standardised attributes for the class token [N, G] and for the patch tokens [N, GRID, GRID, F].

    The class token is also asked for the extremes, mean and spread of the local attributes.
    """
    local = _standardise(studies.local, (0, 1, 2))
    conditions = local[..., 9:]
    summary = [conditions.max((1, 2)), conditions.min((1, 2)), local.mean((1, 2)), local.std((1, 2))]
    overall = [_standardise(studies.attributes, (0,)), _standardise(np.concatenate(summary, -1), (0,))]
    return torch.from_numpy(np.concatenate(overall, -1)).float(), torch.from_numpy(local).float()


def _standardise(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.clip((values - values.mean(axes)) / (values.std(axes) + 1e-6), -4, 4)


def pretrain(
    studies: Studies, *, steps: int, seed: int, lr: float = 2e-3, batch: int = 32
) -> tuple[CLIPVisionModel, dict[str, float]]:
    """Trains a tower and measures it on held-out people.

    Returns:
        The tower and ``{"global", "local"}``: mean squared error over the variance of the attributes
        (1 is guessing) on people the tower has not seen.
    """
    overall, local = targets(studies)
    known = len(studies.images) - HELD_OUT
    rng = np.random.default_rng(seed)
    tower = new_tower(studies.images[np.sort(rng.choice(known, min(300, known), replace=False))], seed)
    heads = nn.ModuleList(
        [nn.Linear(WIDTH, overall.shape[1]), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, local.shape[-1])]
    )
    filters = patch_filters(tower)
    others = [p for p in [*tower.parameters(), *heads.parameters()] if p is not filters]
    groups = [{"params": others, "scale": 1.0}, {"params": [filters], "scale": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))

    def errors(chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        out = tower(pixels(studies.images[chosen]))
        seen = heads[2](heads[1](out.last_hidden_state[:, 1:])).view(len(chosen), GRID, GRID, -1)
        whole = (heads[0](out.pooler_output) - overall[chosen]).square().mean()
        return whole, (seen - local[chosen]).square().mean()

    started, mean = time.perf_counter(), [0.0, 0.0]
    for step in track(range(1, steps + 1), desc="attributes", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * lr * min(1.0, step / 100) * (1 - step / (steps + 1))
        whole, parts = errors(np.sort(rng.choice(known, batch, replace=False)))
        optimizer.zero_grad()
        (whole + 2 * parts).backward()
        nn.utils.clip_grad_norm_([*tower.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        mean = [0.98 * m + 0.02 * float(v.detach()) for m, v in zip(mean, (whole, parts), strict=True)]
        if step % 250 == 0:
            took = time.perf_counter() - started
            print(f"step {step}: global {mean[0]:.3f}, local {mean[1]:.3f}, {took:.0f} s", flush=True)
    tower.eval()
    with torch.no_grad():
        held = [errors(np.arange(i, i + 40)) for i in range(known, len(studies.images), 40)]
    measured = torch.tensor(held).mean(0)
    return tower, {"global": round(float(measured[0]), 3), "local": round(float(measured[1]), 3)}


def save_clip_folder(tower: CLIPVisionModel, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``, keys ``vision_model.*`` as in CLIP's own files."""
    folder.mkdir(parents=True, exist_ok=True)
    tower.config.architectures = ["CLIPVisionModel"]
    tower.config.save_pretrained(folder)
    tensors = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in tower.state_dict().items()}
    tensors = {k: v.contiguous() for k, v in tensors.items() if not k.endswith("position_ids")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
