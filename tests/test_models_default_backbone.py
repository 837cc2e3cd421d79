"""Which base one gets who names none."""

from __future__ import annotations

import sys
from dataclasses import replace

from tl_keras.models.backbones import packages
from tl_keras.runs.config import RunConfig


def _install(folder, monkeypatch, name):
    module = f"stands_in_for_{name}"
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setitem(packages.PACKAGES, name, replace(packages.PACKAGES[name], module=module))
    return module


def test_the_default_base_is_the_smallest_whose_package_is_installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, package in packages.PACKAGES.items():
        monkeypatch.setitem(packages.PACKAGES, name, replace(package, module=f"no_{name}"))
    assert RunConfig.of("photos").model.backbone == "mobilenet_v2"
    module = _install(tmp_path, monkeypatch, "efficientnet_lite2")
    assert RunConfig.of("photos").model.backbone == "efficientnet_lite2"
    _install(tmp_path, monkeypatch, "efficientnet_lite0")
    assert RunConfig.of("photos").model.backbone == "efficientnet_lite0"
    assert RunConfig.of("photos", "resnet50").model.backbone == "resnet50"
    assert module not in sys.modules
