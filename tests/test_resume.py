"""A training that was stopped goes on as itself, from a sound backup of itself, or starts anew."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tiny import make_backbone, make_dataset, weights
from tlhelpers import data, finetune
from tlhelpers.recipes import Recipe

RECIPE = Recipe(
    epochs=5, learning_rate=0.01, batch_size=8, opens={"block1": 3}, average=0.5, l2_sp=0.1, weight_decay=0.01
)


class Stop(keras.callbacks.Callback):
    """Stops the training as a power cut would, at the beginning of the third epoch, or behind the last."""

    def __init__(self, behind_the_last: bool = False) -> None:
        super().__init__()
        self.behind_the_last = behind_the_last

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if epoch == 2 and not self.behind_the_last:
            raise KeyboardInterrupt

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.behind_the_last:
            raise KeyboardInterrupt


def classifier(dropout: float = 0.5, augmentation: keras.layers.Layer | None = None) -> keras.Model:
    """Two blocks; the same weights each time, and the same random numbers afterwards."""
    backbone = make_backbone()
    keras.utils.set_random_seed(3)
    model = finetune.build_classifier(
        backbone, 3, dropout=dropout, augmentation=augmentation or keras.layers.RandomFlip("horizontal")
    )
    finetune.freeze_batchnorm(backbone)
    return model


def train(
    folder: Path,
    model: keras.Model | None = None,
    ds: data.Dataset | None = None,
    recipe: Recipe = RECIPE,
    **more,
) -> tuple[keras.Model, keras.callbacks.History]:
    model = model or classifier()
    return model, finetune.fine_tune(model, ds or make_dataset(), recipe, resume=folder, **more)


def interrupt(folder: Path, **how) -> None:
    """Leave a backup of two epochs, or of all."""
    with pytest.raises(KeyboardInterrupt):
        train(folder, callbacks=[Stop(**how)])
    assert len(files(folder)) == 2  # generations


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz"))


@pytest.fixture(scope="module")
def undisturbed() -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    model = classifier()
    history = finetune.fine_tune(model, make_dataset(), RECIPE)
    return weights(model), history.history


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """As two undisturbed trainings agree: a sum over threads has no fixed order, its last bits are chance.

    Another dropout mask, order or average moves these weights by 1e-2.
    """
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=what)


def assert_equal(found: tuple[keras.Model, keras.callbacks.History], expected: tuple[dict, dict]) -> None:
    """Weights and history of all epochs are those of an undisturbed training."""
    model, history = found
    assert history.epoch == [0, 1, 2, 3, 4]
    assert history.history == pytest.approx(expected[1], rel=1e-5)
    for path, value in weights(model).items():
        assert_close(value, expected[0][path], path)


@pytest.mark.parametrize("behind_the_last", [False, True])
def test_an_interrupted_training_goes_on_to_the_same_result(tmp_path, undisturbed, behind_the_last):
    """With dropout, augmentation, an order, averages and a pull to the start: all of it goes on."""
    interrupt(tmp_path, behind_the_last=behind_the_last)
    keras.utils.set_random_seed(999)  # another process has other random numbers
    model = classifier()
    keras.utils.set_random_seed(1000)
    assert_equal(train(tmp_path, model), undisturbed)
    assert not files(tmp_path)  # done


def changed_pixel() -> data.Dataset:
    ds = make_dataset()
    x = ds.x_train.copy()
    x[3, 2, 1, 0] ^= 1
    return dataclasses.replace(ds, x_train=x)


OTHERS: dict[str, Callable[[], dict]] = {
    "pixel": lambda: {"ds": changed_pixel()},
    "blue for red": lambda: {
        "ds": dataclasses.replace(make_dataset(), x_train=make_dataset().x_train[..., ::-1])
    },
    "order": lambda: {"ds": dataclasses.replace(make_dataset(), x_train=make_dataset().x_train[::-1])},
    "labels": lambda: {"ds": dataclasses.replace(make_dataset(), y_train=make_dataset().y_train[::-1])},
    "validation images": lambda: {
        "ds": dataclasses.replace(make_dataset(), x_val=255 - make_dataset().x_val)
    },
    "validation labels": lambda: {
        "ds": dataclasses.replace(make_dataset(), y_val=make_dataset().y_val[::-1])
    },
    "no validation": lambda: {
        "ds": dataclasses.replace(
            make_dataset(), x_val=make_dataset().x_val[:0], y_val=make_dataset().y_val[:0]
        )
    },
    "dropout": lambda: {"model": classifier(dropout=0.4)},
    "augmentation": lambda: {"model": classifier(augmentation=keras.layers.RandomFlip("vertical"))},
    "rate": lambda: {"recipe": dataclasses.replace(RECIPE, learning_rate=0.02)},
    "epochs": lambda: {"recipe": dataclasses.replace(RECIPE, epochs=6)},
    "pull": lambda: {"recipe": dataclasses.replace(RECIPE, l2_sp=0.2)},
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.fault("a backup of another training")
def test_another_training_does_not_go_on_from_a_backup(tmp_path, what):
    interrupt(tmp_path)
    epochs = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    train(tmp_path, **OTHERS[what](), callbacks=[note])
    assert epochs[0] == 0
    assert len(files(tmp_path)) == 2  # those of the stopped training: it can still go on


@pytest.mark.fault("a backup of another training")
def test_other_weights_or_other_frozen_layers_are_another_training(tmp_path):
    interrupt(tmp_path)
    for change in ("weights", "frozen"):
        model = classifier()
        if change == "weights":
            kernel = model.get_layer("head").kernel
            kernel.assign(kernel + 1e-3)
        else:
            model.get_layer("tiny").get_layer("block2_conv").trainable = False
        epochs = []
        note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs, to=epochs: to.append(epoch))
        train(tmp_path, model, callbacks=[note])
        assert epochs[0] == 0, change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
    "flipped at the start": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "other": lambda content: b"no backup at all",
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.fault("backups of a training, damaged")
def test_a_damaged_backup_gives_way_to_the_one_before(tmp_path, undisturbed, how, caplog):
    interrupt(tmp_path)
    newest = files(tmp_path)[-1]
    newest.write_bytes(DAMAGE[how](newest.read_bytes()))
    epochs = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    assert_equal(train(tmp_path, callbacks=[note]), undisturbed)
    assert epochs == [1, 2, 3, 4]
    assert "is not what was written" in caplog.text


@pytest.mark.fault("backups of a training, damaged")
def test_where_all_backups_are_damaged_it_starts_anew(tmp_path, undisturbed):
    interrupt(tmp_path)
    for path in files(tmp_path):
        path.write_bytes(b"")
    assert_equal(train(tmp_path), undisturbed)


SCRIPT = textwrap.dedent("""
    import os, signal, sys
    import keras, numpy as np
    sys.path[:0] = [{tests!r}, {root!r}]
    import test_resume
    from tlhelpers import paths
    from pathlib import Path

    folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    real, count = os.replace, 0

    def replace(a, b):  # dies just before or just behind the moment when a backup takes its name
        global count
        count += 1
        if count == kill_at // 2 + 1 and kill_at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(a, b)
        if count == kill_at // 2 + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    paths.os.replace = replace
    model, history = test_resume.train(folder)
    np.savez(folder / "done.result.npz", **{{str(i): w for i, w in enumerate(model.get_weights())}})
""")


@pytest.mark.slow
@pytest.mark.fault("a process is killed")
def test_kills_while_a_backup_is_written(tmp_path, undisturbed):
    """SIGKILL on both sides of the moment when a backup becomes one, in one epoch after the other."""
    here = Path(__file__).resolve()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(here.parent), root=str(here.parents[1])))
    folder = tmp_path / "backup"
    folder.mkdir()
    for kill_at in (2, 3, 1000):
        done = subprocess.run([sys.executable, str(script), str(folder), str(kill_at)], env=os.environ)
        assert done.returncode == (0 if kill_at == 1000 else -signal.SIGKILL)
    with np.load(folder / "done.result.npz") as found:
        for i, (path, value) in enumerate(undisturbed[0].items()):
            assert_close(found[str(i)], value, path)
    assert [path.name for path in folder.iterdir()] == ["done.result.npz"]
