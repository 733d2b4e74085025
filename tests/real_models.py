"""Models that others have made, and what they are asked.

Magika's comes with its package. Those of two more packages are unpacked beside the environment by `make setup`, without what
these need to run (`model_wheels.txt`). So is scikit-learn, a model of which is converted here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models

WHEELS = Path(__file__).resolve().parent.parent / ".build" / "models"


@dataclass(frozen=True)
class RealModel:
    """A model: its bytes, and what it is asked, by input."""

    name: str
    read: Callable[[], bytes]
    ask: Callable[[np.random.Generator], Mapping[str, Any]]


# scikit-learn takes seconds to load, and most processes of a run never need it. The environment's own packages come first.
if str(WHEELS) not in sys.path:
    sys.path.append(str(WHEELS))


@cache
def flowers() -> tuple[Any, Any]:
    """Measures of flowers, and the names of their kinds."""
    from sklearn.datasets import load_iris  # noqa: PLC0415

    found = load_iris()
    return found.data.astype(np.float32), found.target_names[found.target]


@cache
def forest() -> Any:
    """What scikit-learn tells flowers by."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=10, random_state=1)).fit(*flowers())


@cache
def _converted() -> bytes:
    from skl2onnx import to_onnx  # noqa: PLC0415

    measures, _ = flowers()
    return bytes(to_onnx(forest(), measures[:1], options={"zipmap": False}).SerializeToString())


def _of_wheel(path: str) -> Callable[[], bytes]:
    return (WHEELS / path).read_bytes


MAGIKA = RealModel(
    name="magika",
    read=lambda: onnx_models.magika().read_bytes(),
    ask=lambda dice: {"bytes": dice.integers(0, 257, (2, 2048), dtype=np.int32)},
)
"""It tells the kind of a file by its bytes. 3 MB."""
FOREST = RealModel(name="forest", read=_converted, ask=lambda dice: {"X": dice.choice(flowers()[0], 7)})
"""A forest of trees behind a scaler, of operators that are not those of ONNX itself; it answers texts, too."""
READER = RealModel(
    name="reader",
    read=_of_wheel("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    ask=lambda dice: {"x": dice.random((1, 3, 48, 160), np.float32)},
)
"""It reads a line of text in a picture. 11 MB, so it fits no single message; three of its input's dimensions are free."""
LISTENER = RealModel(
    name="listener",
    read=_of_wheel("silero_vad/data/silero_vad.onnx"),
    ask=lambda dice: {
        "input": dice.random((1, 576), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16_000, np.int64),
    },
)
"""It tells speech from noise. It takes a state beside the sound, and how fast the sound is, as a scalar, by which it chooses
one of two graphs inside a node."""
MODELS = (MAGIKA, FOREST, READER, LISTENER)
