"""The synthetic catalogue: its plan, samples and files, and what can and cannot be learned from them."""

import io
import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import soundfile
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtl_core.dataset.synthetic.catalogue import (
    ENCODINGS,
    WRITTEN_RATES_HZ,
    CatalogueConfig,
    Song,
    encode,
    labels_csv,
    pcm,
    plan_songs,
)

SHAPE = {"languages": 4, "artists_per_language": 4, "songs_per_artist": 5}


@pytest.mark.parametrize(
    "values",
    [
        {"languages": 0},
        {"artists_per_language": 0},
        {"songs_per_artist": 0},
        {"song_s": 2.9},
        {"song_s": float("nan")},
        {"difficulty": "medium"},
        {"seed": -1},
    ],
)
def test_an_error_names_the_wrong_value(values):
    with pytest.raises(ValueError, match=str(next(iter(values.values())))):
        CatalogueConfig(**values)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 5), (40, 50, 2), (17, 4, 5)])
def test_the_plan_has_every_song_once(shape):
    languages, artists, songs = shape
    tracks = plan_songs(CatalogueConfig(languages=languages, artists_per_language=artists, songs_per_artist=songs))
    assert len(tracks) == languages * artists * songs
    assert len({track.path for track in tracks}) == len({track.song for track in tracks}) == len(tracks)
    assert (
        len({track.artist for track in tracks}) == languages * artists == len({(t.artist, t.language) for t in tracks})
    )
    assert len({track.language for track in tracks}) == languages
    n_albums = languages * artists * min(2, songs)  # no two artists share an album
    assert len({track.album for track in tracks}) == n_albums
    assert not any(track.language in track.path.lower() for track in tracks)


def test_the_songs_of_an_artist_have_all_formats_equally_often():
    tracks = plan_songs(CatalogueConfig(songs_per_artist=8))
    for artist in {track.artist for track in tracks}:
        songs = [track for track in tracks if track.artist == artist]
        assert sorted(track.path.rsplit(".")[-1] for track in songs) == sorted(2 * list(ENCODINGS))
        assert sorted(track.sample_rate_hz for track in songs) == sorted(2 * WRITTEN_RATES_HZ)
        assert sorted(track.channels for track in songs) == 4 * [1] + 4 * [2]


def test_the_seed_decides_the_catalogue():
    config = CatalogueConfig(song_s=3)
    tracks = plan_songs(config)
    assert tracks == plan_songs(config)
    assert labels_csv(tracks) == labels_csv(plan_songs(config))
    assert labels_csv(tracks) != labels_csv(plan_songs(CatalogueConfig(song_s=3, seed=1)))
    first = pcm(tracks[7])
    assert not np.array_equal(pcm(replace(tracks[7], seed=(5,)))[:1000], first[:1000])
    np.testing.assert_array_equal(pcm(tracks[7]), first)  # songs made in between change nothing


def test_labels_have_a_header_and_a_row_for_each_song():
    lines = labels_csv(plan_songs(CatalogueConfig())).decode().splitlines()
    assert lines[0] == "path,artist,language,album,song"
    assert len(lines) == 81


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("extension", list(ENCODINGS))
def test_a_file_has_the_planned_properties(extension, channels):
    song = plan_songs(CatalogueConfig(song_s=3, difficulty="hard"))[0]
    for encoding in ENCODINGS[extension]:
        track = replace(song, encoding=encoding, channels=channels, sample_rate_hz=22_050)
        samples = pcm(track)
        assert samples.dtype == np.float32
        assert len(samples) == pytest.approx(track.duration_s * 22_050, abs=1)
        level = np.sqrt(np.mean(samples.astype(float) ** 2))
        assert 20 * np.log10(level) == pytest.approx(track.level_dbfs, abs=1e-3)
        assert 20 * np.log10(np.abs(samples).max() / level) == pytest.approx(track.crest_db, abs=0.05)
        decoded, rate = soundfile.read(io.BytesIO(encode(samples, track)), dtype="float32", always_2d=True)
        assert (rate, decoded.shape) == (22_050, samples.shape)
        error = np.sqrt(np.mean((decoded - samples) ** 2)) / level
        assert error < (1e-3 if extension in ("wav", "flac") else 0.2)


def _features(track: Song) -> tuple[np.ndarray, np.ndarray]:
    """Properties of the file without its spectrum, and mean and deviation of the cepstrum: the spectrum's shape."""
    data = encode(pcm(track), track)
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    info = soundfile.info(io.BytesIO(data))
    rms, peak = np.sqrt(np.mean(samples**2)), np.abs(samples).max()
    mono_rms = np.sqrt(np.mean(samples.mean(axis=1) ** 2))
    formats = [info.format == name for name in ("WAV", "FLAC", "OGG", "MP3")]
    subtypes = [info.subtype == name for name in ("PCM_16", "PCM_24", "FLOAT")]
    file = [*formats, *subtypes, rate_hz, info.channels, info.duration, np.log(len(data)), len(data) / info.duration]
    loudness = 20 * np.log10([rms, peak, mono_rms, peak / rms])
    mono = samples.mean(axis=1)
    frame = int(0.032 * rate_hz)
    frames = mono[: len(mono) // frame * frame].reshape(-1, frame) * np.hanning(frame)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2840, 41) / 2595) - 1)  # mel scale up to 8 kHz
    bins = np.searchsorted(np.fft.rfftfreq(frame, 1 / rate_hz), edges)
    bands = np.stack([power[:, a : max(b, a + 1)].mean(axis=1) for a, b in itertools.pairwise(bins)], 1)
    cepstrum = scipy.fft.dct(np.log10(bands / frame + 1e-7), norm="ortho")[:, 1:25]  # without 0, the level
    return np.array([*file, *loudness], float), np.concatenate([cepstrum.mean(axis=0), cepstrum.std(axis=0)])


@pytest.fixture(scope="module")
def features_of_difficulty():
    """difficulty -> (tracks, file features, spectral features) of a small catalogue."""
    tracks = {
        name: plan_songs(CatalogueConfig(**SHAPE, song_s=4, difficulty=name, seed=3)) for name in ("easy", "hard")
    }
    with ProcessPoolExecutor(2) as pool:
        features = {name: list(pool.map(_features, tracks[name], chunksize=8)) for name in tracks}
    return {name: (tracks[name], *map(np.array, zip(*features[name], strict=True))) for name in tracks}


def _folds(tracks: list[Song]) -> np.ndarray:
    """The number of each song among the songs of its artist."""
    artists = [track.artist for track in tracks]
    return np.array([artists[:i].count(artist) for i, artist in enumerate(artists)])


def _count_correct(model, features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> int:
    """The number of songs that a model recognises after training on the other folds."""
    return sum(
        int(
            np.sum(
                model.fit(features[folds != k], labels[folds != k]).predict(features[folds == k]) == labels[folds == k]
            )
        )
        for k in range(folds.max() + 1)
    )


MODELS = {
    "neighbour": make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
    "forest": RandomForestClassifier(60, random_state=0),
}


@pytest.mark.parametrize("task", ["artist", "language"])
@pytest.mark.parametrize("model", list(MODELS))
def test_file_properties_and_loudness_predict_nothing(features_of_difficulty, model, task):
    correct = total = 0
    for tracks, file_features, _ in features_of_difficulty.values():
        labels = np.array([getattr(track, task) for track in tracks])
        correct += _count_correct(MODELS[model], file_features, labels, _folds(tracks))
        total += len(tracks)
    chance = 1 / len(set(labels))
    assert correct <= scipy.stats.binom.ppf(0.999, total, chance), f"{correct} of {total}, chance {chance:.3f}"


@pytest.mark.parametrize("task", ["artist", "language"])
def test_the_plans_of_many_seeds_predict_nothing(task):
    correct = total = 0
    for seed in range(12):
        tracks = plan_songs(CatalogueConfig(**SHAPE, seed=seed))
        endings = [[track.path.endswith(name) for name in ENCODINGS] for track in tracks]
        drawn = [(t.sample_rate_hz, t.channels, t.duration_s, t.level_dbfs, t.crest_db) for t in tracks]
        labels = np.array([getattr(track, task) for track in tracks])
        correct += _count_correct(MODELS["neighbour"], np.hstack([endings, drawn]), labels, _folds(tracks))
        total += len(tracks)
    assert correct <= scipy.stats.binom.ppf(0.999, total, 1 / len(set(labels)))


def test_timbre_predicts_labels_and_less_so_on_hard(features_of_difficulty):
    share = {}
    for name, (tracks, _, spectral_features) in features_of_difficulty.items():
        for task in ("artist", "language"):
            labels = np.array([getattr(track, task) for track in tracks])
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            share[name, task] = _count_correct(model, spectral_features, labels, _folds(tracks)) / len(tracks)
    assert share["easy", "artist"] >= 0.8  # chance 0.0625
    assert share["easy", "language"] >= 0.8  # chance 0.25
    assert 0.12 < share["hard", "artist"] < share["easy", "artist"] - 0.15
    assert share["hard", "language"] < share["easy", "language"] - 0.1
