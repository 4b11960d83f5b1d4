"""Writes one tiny checkpoint in every layout that users have; the tests read each back.

Nothing here uses the package under test: the decomposition is the plain SVD of the paper (eq. 1-3), the names
are written out, and plain CLIP comes from transformers itself.

By hand: ``python tests/golden/make_layouts.py FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

WIDTH, HEADS, BLOCKS, PATCH, RESOLUTION, MLP, RANK = 32, 2, 2, 16, 32, 64, 1
HEAD_WIDTH = WIDTH // HEADS
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
State = dict[str, Tensor]


def clip_model(seed: int = 0, resolution: int = RESOLUTION) -> CLIPModel:
    """A random CLIP whose vision tower is ``BLOCKS`` deep and ``WIDTH`` wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                text_config={
                    "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                    "num_attention_heads": 1, "max_position_embeddings": 4,
                    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
                },
                vision_config={
                    "hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": BLOCKS,
                    "num_attention_heads": HEADS, "image_size": resolution, "patch_size": PATCH,
                },
                projection_dim=8,
            )
        )  # fmt: skip
        # transformers starts biases at 0 and norms at 1; other values show a tensor put in the wrong place.
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def dense_tower(seed: int = 0, resolution: int = RESOLUTION) -> State:
    """``vision_model``'s own keys, without a prefix."""
    tower = clip_model(seed, resolution).vision_model.state_dict()
    return {key: value.clone() for key, value in tower.items()}


def head(seed: int = 1, outputs: int = 2) -> State:
    """A random classification head."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(outputs, WIDTH, generator=generator),
        "bias": torch.randn(outputs, generator=generator),
    }


def effort_tower(seed: int = 0, rank: int = RANK, *, triplets: bool = False) -> State:
    """The tower with its attention decomposed; ``triplets`` adds the Effort fork's ``*_r`` tensors.

    The residual is moved away from its start, as training would.
    """
    generator = torch.Generator().manual_seed(seed + 100)
    state: State = {}
    for key, value in dense_tower(seed).items():
        module, _, leaf = key.rpartition(".")
        if leaf != "weight" or not module.endswith(PROJECTIONS):
            state[key] = value
            continue
        u, s, v = torch.linalg.svd(value.double(), full_matrices=False)
        keep = len(s) - rank
        state[f"{module}.weight_main"] = ((u[:, :keep] * s[:keep]) @ v[:keep]).float()
        for name, part in (("S", s[keep:]), ("U", u[:, keep:]), ("V", v[keep:])):
            moved = part + 0.05 * torch.randn(part.shape, generator=generator, dtype=part.dtype)
            state[f"{module}.{name}_residual"] = moved.float().contiguous()
        if triplets:
            for name, part in (("S", s[:keep]), ("U", u[:, :keep]), ("V", v[:keep])):
                state[f"{module}.{name}_r"] = part.float().contiguous()
    return state


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def detector(**kwargs: bool) -> State:
    """The `deepfakebench` layout: what every Effort file has to become."""
    return {**prefixed(effort_tower(**kwargs), "backbone."), **prefixed(head(), "head.")}


def universalfakedetect() -> State:
    """The one-logit layout of the UniversalFakeDetect training, with CLIP's unused text half."""
    whole = clip_model().state_dict()
    unused = {k: v for k, v in whole.items() if not k.startswith("vision_model.")}
    return {
        **prefixed(effort_tower(), "model.vision_model."),
        **prefixed(unused, "model."),
        **prefixed(head(outputs=1), "fc."),
    }


def open_clip() -> State:
    """OpenAI's original names: q, k and v stacked on the first axis."""
    tower = dense_tower()
    state = {
        "positional_embedding": torch.randn(4, 8), "text_projection": torch.randn(8, 8),
        "logit_scale": torch.tensor(4.6), "visual.proj": torch.randn(WIDTH, 8),
        "token_embedding.weight": torch.randn(8, 8), "ln_final.weight": torch.ones(8),
        "ln_final.bias": torch.zeros(8), "transformer.resblocks.0.ln_1.weight": torch.ones(8),
        "visual.class_embedding": tower["embeddings.class_embedding"],
        "visual.positional_embedding": tower["embeddings.position_embedding.weight"],
        "visual.conv1.weight": tower["embeddings.patch_embedding.weight"],
        "input_resolution": torch.tensor(RESOLUTION),
    }  # fmt: skip
    for ours, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        for leaf in ("weight", "bias"):
            state[f"visual.{theirs}.{leaf}"] = tower[f"{ours}.{leaf}"]
    for i in range(BLOCKS):
        block, target = f"encoder.layers.{i}", f"visual.transformer.resblocks.{i}"
        for leaf in ("weight", "bias"):
            stacked = [tower[f"{block}.self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            state[f"{target}.attn.in_proj_{leaf}"] = torch.cat(stacked)
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                state[f"{target}.{theirs}.{leaf}"] = tower[f"{block}.{ours}.{leaf}"]
    return state


def trainer_state(state: State, key: str) -> dict[str, object]:
    """What trainers put around a state dict."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    return {key: state, "optimizer": optimizer.state_dict(), "total_steps": 7, "epoch": 1}


def _safetensors(state: State, path: Path) -> None:
    save_file({key: value.contiguous() for key, value in state.items()}, path)


def _clip_with_position_ids(path: Path) -> None:
    positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    torch.save({**clip_model().state_dict(), **positions}, path)


# Effort checkpoints: each becomes detector(), up to the head of the one-logit layouts.
EFFORT: dict[str, Callable[[Path], None]] = {
    "deepfakebench.pth": lambda p: torch.save(detector(), p),
    "deepfakebench_legacy.pth": lambda p: torch.save(detector(), p, _use_new_zipfile_serialization=False),
    "deepfakebench.safetensors": lambda p: _safetensors(detector(), p),
    "effort_fork.pth": lambda p: torch.save(detector(triplets=True), p),
    "ddp.pth": lambda p: torch.save(prefixed(detector(), "module."), p),
    "compiled.pth": lambda p: torch.save(prefixed(detector(), "_orig_mod."), p),
    "state_dict.pth": lambda p: torch.save({"state_dict": detector()}, p),
    "model_state_dict.pth": lambda p: torch.save(trainer_state(detector(), "model_state_dict"), p),
    "ckpt_last.pth": lambda p: torch.save(trainer_state(detector(), "model"), p),
    "ckpt_last_ours.pth": lambda p: torch.save(
        {
            **trainer_state(detector(), "model"), "format": "effort_finetune.train/1",
            "order": torch.arange(4), "settings": {"nEpochs": 1},
        },
        p,
    ),
    "nested.pth": lambda p: torch.save(
        trainer_state({"state_dict": prefixed(detector(), "module.")}, "model"), p  # type: ignore[arg-type]
    ),
}  # fmt: skip
ONE_LOGIT: dict[str, Callable[[Path], None]] = {
    "universalfakedetect.pth": lambda p: torch.save(trainer_state(universalfakedetect(), "model"), p),
    "universalfakedetect_bare.pth": lambda p: torch.save(universalfakedetect(), p),
    "universalfakedetect_ddp.pth": lambda p: torch.save(
        trainer_state(prefixed(universalfakedetect(), "module."), "model"), p
    ),
}
# Plain CLIP: each becomes the dense tower.
DENSE: dict[str, Callable[[Path], None]] = {
    "clip_vision_4.safetensors": lambda p: _safetensors(prefixed(dense_tower(), "vision_model."), p),
    "clip_vision_5_6.safetensors": lambda p: _safetensors(dense_tower(), p),
    "clip_model.safetensors": lambda p: _safetensors(clip_model().state_dict(), p),
    "pytorch_model.bin": _clip_with_position_ids,
    "clip_folder": lambda p: clip_model().save_pretrained(p),
    "open_clip.pt": lambda p: torch.save(open_clip(), p),
    "open_clip_training.pt": lambda p: torch.save(
        trainer_state(prefixed(open_clip(), "module."), "state_dict"), p
    ),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in {**EFFORT, **ONE_LOGIT, **DENSE}.items():
        write(folder / name)
