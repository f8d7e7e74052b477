"""The length of an embedding: near 1 for songs of other artists, near 0 for noise, hum and tones."""

import numpy as np
import pytest
import soxr
import torch
from builders.moments import moments

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.mel import log_mel
from mtl_core.dataset.synthetic.catalogue import CatalogueConfig, pcm, plan_songs
from mtl_core.model.cnn import BANDS, FRAMES
from mtl_core.model.segment_statistics import CEPSTRA, SegmentStatistics, modulation_means
from mtl_core.model.typical import STEEPNESS, EmbeddingLength, fit_typical

RATE_HZ, SAMPLES = 16_000, 3 * 16_000
TIME_S = np.arange(SAMPLES) / RATE_HZ


def values(sounds):
    """The statistics of sounds of 3 s, (S, 720) float32."""
    front_end = FrontEnd()
    assert front_end.mel.sample_rate_hz == RATE_HZ
    mel_STF = log_mel(np.stack(sounds).astype(np.float32), front_end.mel, front_end.filter_bank)
    return SegmentStatistics(FRAMES, BANDS)(torch.from_numpy(mel_STF).unsqueeze(1))


@pytest.fixture(scope="module")
def songs():
    """The statistics of three segments of each of 48 songs of 16 artists; the songs of an artist follow each other."""
    planned = plan_songs(CatalogueConfig(songs_per_artist=3, song_s=10, difficulty="hard"))
    sounds = []
    for song in planned:
        samples_N = soxr.resample(pcm(song).mean(1), song.sample_rate_hz, RATE_HZ)
        sounds += list(samples_N[: 3 * SAMPLES].reshape(3, SAMPLES))
    return values(sounds)


@pytest.fixture(scope="module")
def length(songs):
    """Lengths, fitted on the songs of 12 artists."""
    length = EmbeddingLength(songs.shape[1], 11)
    length.set(fit_typical(moments(songs[:108].double().numpy().reshape(36, 3, -1)), 0))
    return length


def noise(tilt):
    """Noise whose power falls with frequency to the power `tilt`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=SAMPLES)) / np.maximum(
        np.arange(SAMPLES // 2 + 1), 20
    ) ** (tilt / 2)
    samples_N = np.fft.irfft(spectrum, SAMPLES)
    return samples_N / samples_N.std()


STRANGE = {
    "white noise": 0.1 * noise(0),
    "faint white noise": 0.003 * noise(0),
    "pink noise": 0.1 * noise(1),
    "brown noise": 0.1 * noise(2),
    "a pure tone": 0.3 * np.sin(2 * np.pi * 440 * TIME_S),
    "mains hum": sum(0.1 / k * np.sin(2 * np.pi * 50 * k * TIME_S) for k in range(1, 20)) + 0.001 * noise(0),
    "one click": np.where(np.arange(SAMPLES) == SAMPLES // 2, 0.5, 0.0),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_sound_that_is_no_music_has_a_short_embedding(length, name):
    with torch.no_grad():
        assert length(values([STRANGE[name]])).item() < 0.2


def test_songs_of_other_artists_have_long_embeddings(songs, length):
    with torch.no_grad():
        known_S, other_S = length(songs[:108])[:, 0].numpy(), length(songs[108:])[:, 0].numpy()
    assert (known_S == 1).mean() > 0.95
    assert np.quantile(other_S, 0.2) > 0.9


def test_the_length_falls_with_the_distance(length):
    with torch.no_grad():
        centre_1D = length.centre_D[None]
        assert length(centre_1D).item() == 1
        far_1D = centre_1D + 3 * length.largest * length.scale_D
        assert length(far_1D).item() <= 3.0**-STEEPNESS * 1.001


def test_modulation_means_are_those_of_the_bands_over_the_cepstra(songs):
    of_bands_MC = songs[0, -11 * CEPSTRA :].reshape(CEPSTRA, 11).mean(0)
    assert modulation_means(BANDS) @ songs[0].numpy() == pytest.approx(of_bands_MC.numpy(), rel=1e-5)


def test_values_of_a_trunk_alone_have_one_size():
    x_NSD = np.random.default_rng(0).normal(size=(20, 3, 5))
    typical = fit_typical(moments(x_NSD), 5)
    assert typical.whiten_MD.shape == (0, 5)
    length = EmbeddingLength(5, 0)
    length.set(typical)
    assert (length(torch.from_numpy(x_NSD[:, 0]).float()) <= 1).all()
