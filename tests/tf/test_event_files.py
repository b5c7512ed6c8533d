"""Event files: what is written is read back, whatever happens to the disk, the process and the package tensorboard."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from gradcheck.tensorboard._sink import EventFile
from gradcheck.tensorboard._values import histogram, image, scalar

PNG = tf.io.encode_png(np.full((3, 5, 1), 200, np.uint8)).numpy()


def test_a_closed_file_takes_nothing(tmp_path):
    file = EventFile(tmp_path)
    file.close()
    with pytest.raises(ValueError, match=r"^the writer to .* was closed; make a new one$"):
        file.write(1, [scalar("loss", 1.0)])


def test_without_a_write_there_is_no_file(tmp_path):
    EventFile(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


NO_PNG = r"^png must hold a PNG picture; got 6 bytes that begin with b'GIF89a'$"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: EventFile(3), TypeError, r"^logdir must be a path; got logdir=3$"),
        (
            lambda: EventFile("a", on_error="x"),
            ValueError,
            "^on_error must be one of 'log', 'raise'; got on_error='x'$",
        ),
        (lambda: image("a", b"GIF89a"), ValueError, NO_PNG),
        (lambda: histogram("a", np.zeros((2, 2))), ValueError, r"^buckets must have the shape \[k, 3\]; got \[2, 2\]$"),
        (lambda: histogram("a", [[0, np.nan, 1]]), ValueError, "^buckets must be finite; got NaN or infinity in 'a'$"),
    ],
)
def test_misuse_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


class TestADiskThatFails:
    def test_is_said_once_and_stops_nothing(self, tmp_path, caplog):
        (tmp_path / "file").write_text("no directory")
        sink = EventFile(tmp_path / "file" / "run")
        with caplog.at_level(logging.WARNING, "gradcheck"):
            for step in range(3):
                sink.write(step, [scalar("loss", 1.0)])
            sink.close()
        (record,) = caplog.records
        assert record.getMessage().startswith(f"cannot write to {tmp_path / 'file' / 'run'}: ")
        assert record.getMessage().endswith("; training goes on without")

    def test_raises_where_that_was_asked_for(self, tmp_path):
        (tmp_path / "file").write_text("no directory")
        with pytest.raises((tf.errors.OpError, OSError)):
            EventFile(tmp_path / "file", on_error="raise").write(0, [scalar("loss", 1.0)])

    def test_is_tried_again_with_a_fresh_file(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("gradcheck.tensorboard._sink._PAUSE", 0.0)
        (tmp_path / "run").write_text("in the way")
        sink = EventFile(tmp_path / "run")
        sink.write(0, [scalar("loss", 1.0)])
        (tmp_path / "run").unlink()
        sink.write(1, [scalar("loss", 1.0)])
        sink.close()
        assert [r.getMessage().rpartition("; ")[2] for r in caplog.records] == [
            "training goes on without",
            "steps lost: 1",
        ]
        assert len(list((tmp_path / "run").iterdir())) == 1
