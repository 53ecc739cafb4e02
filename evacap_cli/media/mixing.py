"""Mixes the channels of a sound to mono without losing loudness."""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np
from av.audio.frame import AudioFrame

CRASHING_PLANES = 8  # with this many planes or more, PyAV reads past the plane list and crashes
MIN_POWER_SHARE = 10 ** (-5.5 / 10)
"""Least power of the mean, relative to the loudest channel: -5.5 dB. Averaging uncorrelated stereo channels loses 3 dB,
a channel and a silent one 6 dB, channels in antiphase everything."""

ROUNDING = 1e-12  # relative power that rounding leaves after a constant offset is removed


def channels_of(frame: AudioFrame) -> np.ndarray:
    """Returns the main channels of a frame of any sample format: (S, C) float32, full scale is 1.

    Omits low-frequency effects, as ITU-R BS.1770-5 does, and all ambisonic components but the first, W, which is the
    signal of one omnidirectional microphone (RFC 8486).
    """
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= CRASHING_PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if channels > 2:
        names = [channel.name for channel in frame.layout.channels]
        heard = [
            i
            for i, name in enumerate(names)
            if not name.startswith("LFE") and (not name.startswith("AMBI") or name == "AMBI0")
        ]
        samples = samples[:, heard or slice(None)]
    kind = samples.dtype
    with np.errstate(invalid="ignore", over="ignore"):  # float files may hold any value
        samples = samples.astype(np.float32)
        if kind == np.uint8:
            samples = (samples - np.float32(128)) / np.float32(128)
        elif kind.kind == "i":
            samples *= np.float32(2.0 ** (1 - 8 * kind.itemsize))
    return samples


def mix(samples: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(S,) float32: the sum of channels (S, C) with `weights` (C,), or their mean if None."""
    count = samples.shape[1]
    if count == 1:
        return samples[:, 0]
    mono = np.zeros(len(samples))
    for channel in range(count):
        mono += samples[:, channel] if weights is None else samples[:, channel] * weights[channel]
    if weights is None:
        mono /= count
    return mono.astype(np.float32)


def find_weights(stretches: Iterable[np.ndarray]) -> np.ndarray | None:
    """Returns the mixing weights of the channels of `stretches`, each (S, C): (C,) float64; None for the mean.

    The mean, which FFmpeg and SoX use for stereo, is kept while it is about as loud as the channels. If it loses more
    than 5.5 dB of the loudest channel's power (antiphase, one of several channels in use, dialogue only in the
    centre), channels are added with the polarity in which they do not cancel, and the sum is scaled to the power of
    the loudest. Loudness is power: ITU-R BS.1770-5 adds the powers of the channels, so polarity does not affect it. A
    constant offset is inaudible and is ignored.
    """
    number, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for samples in stretches:
        if samples.shape[1] == 1:
            return None
        if not number:
            total, products = np.zeros(samples.shape[1]), np.zeros((samples.shape[1],) * 2)
        wide = samples.astype(np.float64)
        number += len(wide)
        total += wide.sum(axis=0)
        products += wide.T @ wide
    if not number:
        return None
    mean = total / number
    covariance = products / number - np.outer(mean, mean)
    powers, count = np.diag(covariance), len(mean)
    loudest = float(powers.max())
    silent = loudest <= ROUNDING * float(products.max()) / number
    if silent or float(covariance.sum()) / count**2 >= MIN_POWER_SHARE * loudest:
        return None
    signs = np.zeros(count)
    for channel in np.argsort(-powers, kind="stable"):
        signs[channel] = 1.0 if float(signs @ covariance[channel]) >= 0 else -1.0
    # rounded, so that it does not depend on how the sound is cut into stretches
    gain = round(np.sqrt(loudest / float(signs @ covariance @ signs)), 3)
    return signs * gain


def loudness(samples: np.ndarray) -> np.ndarray:
    """(S,) float64, the power over time of a stretch (S, C): of the mean, or of the loudest channel if the mean loses
    more than `find_weights` accepts."""
    mono = mix(samples, None)
    if samples.shape[1] > 1:
        powers = samples.var(axis=0, dtype=np.float64)
        if float(mono.var(dtype=np.float64)) < MIN_POWER_SHARE * float(powers.max()):
            mono = samples[:, int(powers.argmax())]
    return np.square(mono, dtype=np.float64)
