"""Behaviour of tlhelpers.course.profiles."""

import dataclasses

import pytest

from tlhelpers.course import profiles


@pytest.mark.parametrize("name", ["smoke", "laptop", "gpu"])
def test_a_profile_by_name(monkeypatch, name):
    monkeypatch.setenv("TL_PROFILE", "gpu" if name != "gpu" else "smoke")
    assert profiles.get(name).name == name


def test_the_environment_decides_where_no_name_is_given(monkeypatch):
    monkeypatch.setenv("TL_PROFILE", "smoke")
    assert profiles.get() is profiles.get(None) is profiles.get("smoke")
    monkeypatch.setenv("TL_PROFILE", "")
    assert profiles.get().name == "laptop"
    monkeypatch.delenv("TL_PROFILE")
    assert profiles.get().name == "laptop"


def test_an_unknown_profile(monkeypatch):
    with pytest.raises(ValueError, match=r"'fast'.* smoke, laptop"):
        profiles.get("fast")
    monkeypatch.setenv("TL_PROFILE", "slow")
    with pytest.raises(ValueError, match="no profile 'slow'"):
        profiles.get()


def test_profiles_make_sense():
    smoke, laptop, gpu = (profiles.get(n) for n in ("smoke", "laptop", "gpu"))
    assert (smoke.dataset, laptop.dataset, gpu.dataset) == ("digits", "cifar10", "cifar10")
    assert laptop.n_train == 5000
    assert gpu.n_train is None
    assert smoke.image_size < laptop.image_size < gpu.image_size
    assert smoke.epochs < laptop.epochs < gpu.epochs
    for profile in (laptop, gpu):
        assert len(set(profile.seeds)) >= 3  # an interval needs them
    assert smoke.seeds == (0,)  # its values mean nothing
    assert all(profile.image_size >= 32 for profile in (smoke, laptop, gpu))


def test_a_profile_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiles.get("smoke").epochs = 2
