"""Pre-trained networks as towers: the classes that YAMNet and EfficientNet-lite recognise become tokens.

A tower returns *tags*, float32 (B, T, numbers), the best classes first: the class, and the confidence of the network.

    sound    (B, heard, 2 + windows): class, logit in the clip, logit in each window
    picture  (B, N * seen, 3): class, logit, probability; `seen` classes of every frame

`embed_audio` and `embed_picture` convert tags to tokens (B, T, d): class embedding + MLP of the numbers, then
self-attention. The networks are never trained here.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evacap_cli.model.config import TagEncoderConfig
from evacap_cli.model.efficientnet_lite import EfficientNetLite0
from evacap_cli.model.encoder import Block
from evacap_cli.model.fused import Tags
from evacap_cli.model.yamnet import YAMNet

NETWORKS = ("network_a", "network_v")
"""Attributes of the encoder that contain the pre-trained networks."""
LOGIT_SCALE = 4.0
"""Logits are divided by this before they enter an MLP, so that they are of the order of 1."""
MIN_PROBABILITY = 1e-6
"""Probabilities are kept this far from 0 and 1, so that their logits are finite."""


class TagEmbedding(nn.Module):
    """Converts tags to tokens: the embedding of the class + an MLP of the numbers."""

    def __init__(self, classes: int, numbers: int, width: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, width)
        self.mlp = nn.Sequential(nn.Linear(numbers, width), nn.GELU(), nn.Linear(width, width))
        nn.init.normal_(self.classes.weight, std=0.5)

    def forward(self, tags: Tensor, numbers: Tensor) -> Tensor:
        """tags: (B, T, ...), the class first. numbers: (B, T, n). Returns (B, T, d)."""
        weight = self.mlp[0].weight if isinstance(self.mlp[0], nn.Linear) else self.classes.weight
        return self.classes(tags[..., 0].long()) + self.mlp(numbers.to(weight.dtype))


class TagEncoder(nn.Module):
    """Both networks, and the layers that convert their tags to tokens. Replaces `TwoTowerEncoder`.

    `unified`: the concatenated tokens of both modalities run through the same blocks, as in AVCap. `picture=False`
    omits the picture network.
    """

    in_pairs = False
    tag_head = None

    def __init__(self, config: TagEncoderConfig, picture: bool = True, unified: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        """Whether training recomputes the activations inside blocks instead of keeping them."""
        d = config.width
        self.network_a = YAMNet()
        self.embed_a = TagEmbedding(config.audio_classes, 1 + config.windows, d)
        self.blocks_a = self._blocks(config.depth)
        self.norms = nn.ModuleDict({"a": nn.LayerNorm(d)})
        if picture:
            self.network_v = _picture_network(config)
            self.embed_v = TagEmbedding(config.picture_classes, 2, d)
            if unified:
                self.modality_a, self.modality_v = (nn.Parameter(torch.zeros(1, 1, d)) for _ in "av")
                self.blocks_u = self._blocks(config.picture_depth)
                self.norms["joint"] = nn.LayerNorm(d)
            else:
                self.blocks_v = self._blocks(config.picture_depth)
                self.norms["v"] = nn.LayerNorm(d)
        for name in NETWORKS:
            if hasattr(self, name):
                getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> TagEncoder:
        """The networks stay in evaluation mode: their batch statistics are part of their weights."""
        super().train(mode)
        for name in NETWORKS:
            if hasattr(self, name):
                getattr(self, name).eval()
        return self

    def use_channels_last(self) -> None:
        """Sets the memory format of the networks for inference: grouped convolutions with few channels are a third
        faster with channels last."""
        for name in NETWORKS:
            if hasattr(self, name):
                getattr(self, name).to(memory_format=torch.channels_last)

    def _blocks(self, depth: int) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(depth))

    def _run(self, blocks: nn.ModuleList, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = cast(Tensor, checkpoint(block, x, "own", mask, use_reentrant=False))
            else:
                x = block(x, "own", mask)
        return x

    # -- networks: sound and frames to tags --------------------------------------------------------------------

    def audio_tower(self, log_mel: Tensor) -> Tensor:
        """log_mel: (B, T, 64) of `features.fbank`. Returns the tags of the sound, (B, heard, 2 + windows)."""
        return heard_tags(_run_network(self.network_a, log_mel), self.config.heard, self.config.windows)

    def picture_tower(self, pixels: Tensor) -> Tensor:
        """pixels: (B, N, 3, S, S), normalised. Returns the tags of every frame, (B, N * seen, 3)."""
        logits = _run_network(self.network_v, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return frame_tags(logits, self.config.seen)

    def align_audio(self, tags: Tensor) -> Tensor:
        """Returns its argument: tags need no alignment."""
        return tags

    def align_picture(self, tags: Tensor) -> Tensor:
        return tags

    # -- tags to tokens ----------------------------------------------------------------------------------------

    def tokens(
        self, audio: Tensor, picture: Tensor | None, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tags]:
        """The tokens of the tags of clips.

        audio: tags (B, heard, 2 + windows). picture: tags of the frames (B, N * seen, 3) or None. frame_mask: bool
        (B, N), True for frames that exist. Returns A (B, T_a, d), F_v (B, T_v, d), the mask of F_v, bool (B, T_v) or
        None if all tokens exist, and the tags of audio and picture.
        """
        A = self.embed_audio(audio)
        if picture is None:
            return A, None, None, (audio, None)
        seen = pooled_frames(picture, self.config.seen, self.config.picture_classes, frame_mask)
        present = None if frame_mask is None else frame_mask.any(dim=1)
        mask = None
        if present is not None and not bool(present.all()):
            seen = torch.where(present[:, None, None], seen, 0.0)
            mask = present[:, None].expand(seen.shape[:2])
        return A, self.embed_picture(seen), mask, (audio, seen)

    def embed_audio(self, tags: Tensor) -> Tensor:
        """Tags (B, heard, 2 + windows) to tokens (B, T_a, d)."""
        x = self.embed_a(tags, tags[..., 1:] / LOGIT_SCALE)
        return self.norms["a"](self._run(self.blocks_a, x))

    def embed_picture(self, tags: Tensor) -> Tensor:
        """Tags of a clip's picture from `pooled_frames` (B, seen, 3) to tokens (B, T_v, d)."""
        numbers = (
            torch.stack((tags[..., 1] / 2, tags[..., 2].clamp(min=MIN_PROBABILITY).log()), dim=-1)
            / LOGIT_SCALE
        )
        x = self.embed_v(tags, numbers)
        return x if "joint" in self.norms else self.norms["v"](self._run(self.blocks_v, x))

    def join(self, audio: Tensor, picture: Tensor | None, mask: Tensor | None) -> Tensor:
        """Runs the shared blocks on the concatenated tokens of both modalities, (B, T_a + T_v, d); see
        `TwoTowerEncoder.join`."""
        x = audio + self.modality_a
        if picture is not None:
            x = torch.cat((x, picture + self.modality_v), dim=1)
        return self.norms["joint"](self._run(self.blocks_u, x, mask))


def _picture_network(config: TagEncoderConfig) -> nn.Module:
    if config.network == TagEncoderConfig.network:
        return EfficientNetLite0(config.picture_classes)
    import timm  # takes seconds

    return timm.create_model(config.network, pretrained=False, num_classes=config.picture_classes)


def heard_tags(logits: Tensor, heard: int, windows: int) -> Tensor:
    """Logits of a sound's patches (B, P, C) to the tags of its `heard` best classes, (B, heard, 2 + windows).

    The probability of a class in a window is the mean over the patches of the window. That in the clip is the root mean
    square over all patches, so that short sounds have more weight.
    """
    p = logits.float().sigmoid()
    clip = p.square().mean(dim=1).sqrt()  # (B, C)
    parts = torch.stack([part.mean(dim=1) for part in p.tensor_split(windows, dim=1)], dim=2)  # (B, C, W)
    best = clip.topk(heard, dim=1).indices
    numbers = torch.cat((clip[..., None], parts), dim=2).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY).logit()
    numbers = numbers.gather(1, best[..., None].expand(-1, -1, numbers.shape[2]))
    return torch.cat((best[..., None].to(numbers.dtype), numbers), dim=2)


def frame_tags(logits: Tensor, seen: int) -> Tensor:
    """Logits of frames (B, N, C) to the tags of each frame's `seen` best classes, (B, N * seen, 3)."""
    logits = logits.float()
    best, index = logits.topk(seen, dim=2)
    chances = logits.softmax(dim=2).gather(2, index)
    return torch.stack((index.to(best.dtype), best, chances), dim=-1).flatten(1, 2)


def pooled_frames(tags: Tensor, seen: int, classes: int, frame_mask: Tensor | None = None) -> Tensor:
    """Tags of frames (B, N * seen, 3) to those of the clip's `seen` best classes, (B, seen, 3).

    The probability is the mean over the frames that exist (bool (B, N)), the logit that of the best frame.
    """
    frames = tags.unflatten(1, (-1, seen))  # (B, N, seen, 3)
    weight = frames.new_ones(frames.shape[:2]) if frame_mask is None else frame_mask.to(frames.dtype)
    weight = torch.where(weight.sum(dim=1, keepdim=True) > 0, weight, 1.0)  # all frames of a clip without any
    share = weight / weight.sum(dim=1, keepdim=True)
    index, B = tags[..., 0].long(), len(tags)
    chances = (frames[..., 2] * share[..., None]).flatten(1)
    total = chances.new_zeros(B, classes).scatter_add_(1, index, chances)
    logits = torch.where(weight[..., None] > 0, frames[..., 1], -torch.inf).flatten(1)
    highest = logits.new_full((B, classes), -torch.inf).scatter_reduce_(1, index, logits, "amax")
    best, found = total.topk(seen, dim=1)
    return torch.stack((found.to(best.dtype), highest.gather(1, found).clamp(min=-20.0), best), dim=-1)


def _run_network(network: nn.Module, x: Tensor) -> Tensor:
    """Runs a network in the precision of its weights, because half precision would change the order of classes."""
    x = x.to(next(network.parameters()).dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, enabled=False):
        return network(x).float()
