"""Write tests/golden.json anew, after METHOD_VERSION was raised: ``python tests/golden.py``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import world
from test_golden import CASES, GOLDEN, losses

from vdep.recipe import METHOD_VERSION


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        assets, prepared = Path(scratch) / "assets", Path(scratch) / "prepared"
        assets.mkdir()
        world.make_assets(assets)
        numbers = {f"{f}/{c}": losses(f, c, assets, prepared) for f in world.FAMILIES for c in CASES}
    GOLDEN.write_text(json.dumps({"method_version": METHOD_VERSION, "losses": numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
