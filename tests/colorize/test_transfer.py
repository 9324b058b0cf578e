"""Code values to the device and back: every one of every depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from archivecolor.colorize.transfer import download, upload

without_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, without_gpu])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("depth", "dtype"), [(8, np.uint8), (10, np.uint16), (16, np.uint16)])
def test_every_code_value_comes_back(depth: int, dtype: type, device: str) -> None:
    codes = np.arange(1 << depth, dtype=dtype).reshape(2, -1, 32)
    planes = [np.asfortranarray(codes[0]), codes[1][:, ::-1]]  # as decoders and croppers leave them
    luma = upload(planes, torch.device(device))
    assert luma.device.type == device
    assert luma.dtype == (torch.uint8 if depth == 8 else torch.int32)
    assert luma.cpu().tolist() == [plane.tolist() for plane in planes]
    [back] = download([luma], depth)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, np.stack(planes))
