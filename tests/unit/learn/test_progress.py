"""Progress shows in a terminal and nowhere else."""

import io
import sys

from lepton_ai import Sequential


class Terminal(io.StringIO):
    def isatty(self):
        return True


def fit(blobs):
    model = Sequential((2,), [("dense", {"units": 4, "activation": "softmax"})])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(*blobs, epochs=2, seed=0)


def test_a_terminal_shows_each_epoch(blobs, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(blobs)
    assert "epoch 1/2  loss " in terminal.getvalue()
    assert "epoch 2/2  loss " in terminal.getvalue()


def test_elsewhere_it_is_quiet(blobs, capsys):
    fit(blobs)
    assert capsys.readouterr() == ("", "")
