"""Video clips, encoded here with real codecs."""

from __future__ import annotations

import av
import numpy as np
import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.readers import read, sniff
from medvlm.data_recipes.readers.clip import choose_frames
from medvlm.data_recipes.sample import VisualRef


def write_clip(path, frames, rate=10, codec="mpeg4", options=None):
    """Encode (T, H, W, 3) uint8 frames."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def brightening(count=50, colour=False):
    """Frame k has brightness 4k, so that a frame tells its number; the top half is darker."""
    frames = np.empty((count, 64, 96, 3), np.uint8)
    frames[:] = (np.arange(count) * 4)[:, None, None, None]
    frames[:, :32] //= 2
    if colour:
        frames[..., 2] = 20
    return frames


def load(path, **options):
    return read(VisualRef(kind="video", path=path.name, options=options), path.parent)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4")])
def test_frames_and_times(tmp_path, name, codec):
    write_clip(tmp_path / name, brightening(), codec=codec)
    assert sniff(tmp_path / name) == "video"
    video = load(tmp_path / name, max_frames=100, modality="US")
    assert video.frames.shape == (50, 1, 64, 96) and video.modality == "US"
    np.testing.assert_allclose(video.times_s, np.arange(50) / 10, atol=1e-3)
    np.testing.assert_allclose(video.frames[:, 0, 50, 50] * 255, np.arange(50) * 4, atol=6)
    assert (video.frames[10:, 0, 8, 50] < video.frames[10:, 0, 56, 50]).all()  # upright


def test_default_cap_keeps_first_and_last(tmp_path):
    write_clip(tmp_path / "a.mp4", brightening())
    video = load(tmp_path / "a.mp4")
    assert len(video.frames) == 32
    assert video.times_s[0] == 0 and video.times_s[-1] == pytest.approx(4.9)


def test_span_and_number(tmp_path):
    write_clip(tmp_path / "a.mp4", brightening())
    video = load(tmp_path / "a.mp4", start_s=1.0, end_s=3.0, max_frames=5)
    np.testing.assert_allclose(video.times_s, [1, 1.5, 2, 2.5, 3], atol=1e-3)
    with pytest.raises(BadSample, match=r"no frame from 8 s to 9 s; the clip runs to 4.900 s"):
        load(tmp_path / "a.mp4", start_s=8, end_s=9)
    with pytest.raises(BadSample, match=r"no span of time"):
        load(tmp_path / "a.mp4", start_s=3, end_s=1)
    with pytest.raises(BadSample, match=r"options.max_frames is 0"):
        load(tmp_path / "a.mp4", max_frames=0)


def test_colour_stays_colour(tmp_path):
    write_clip(tmp_path / "c.mp4", brightening(20, colour=True))
    video = load(tmp_path / "c.mp4")
    assert video.frames.shape == (20, 3, 64, 96)
    assert video.frames[19, 0, 60, 50] > video.frames[19, 2, 60, 50] + 0.1


def test_choice_is_uniform():
    times = np.arange(11) / 10
    assert choose_frames(times, None, start_s=None, end_s=None, max_frames=6) == [0, 2, 4, 6, 8, 10]
    assert choose_frames(times, None, start_s=None, end_s=None, max_frames=1) == [5]
    assert choose_frames(times, None, start_s=0.3, end_s=0.5, max_frames=9) == [3, 4, 5]


def test_empty_fake_and_cut_off(tmp_path):
    (tmp_path / "e.mp4").touch()
    with pytest.raises(BadSample, match=r"e.mp4: the file is empty"):
        load(tmp_path / "e.mp4")
    (tmp_path / "f.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    with pytest.raises(BadSample, match=r"f.mp4: expected a video clip.*Mend: copy the clip again"):
        load(tmp_path / "f.mp4")
    # The index first, then the frames: a cut file opens, and must still not pass as a shorter clip.
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 96, 3), dtype=np.uint8)
    write_clip(tmp_path / "w.mp4", noise, options={"movflags": "faststart"})
    whole = (tmp_path / "w.mp4").read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    assert len(load(tmp_path / "w.mp4").frames) == 30
    with pytest.raises(BadSample, match=r"cut off|cannot be decoded"):
        load(tmp_path / "cut.mp4")


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "s.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(BadSample, match=r"no video stream"):
        load(tmp_path / "s.mkv")
