"""Model FLOP utilisation of a stage-1 step at 7B size and of an SFT step at 3B size, with random weights, on one GPU.

``--geometry tiny`` runs it anywhere, to see that it runs; a ratio is claimed only where the device's peak is known. What is
counted: ``vdep.train.flops``.
"""

from __future__ import annotations

import argparse

import torch
from common import GEOMETRIES, Claim, Geometry, alternate, batch_of, build, build_task, optimizer_of, report, samples, say

from vdep.train.flops import StepFlops, peak_flops

TEXT = {"stage 1": 24, "SFT": 220}
TARGET = {"stage 1": 0.50, "SFT": 0.45}
CASES = {"stage 1": "7b", "SFT": "3b"}


def measure(
    case: str, geometry: Geometry, chosen: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> tuple[float, float]:
    """Seconds of a step, and the operations it needs."""
    model = build(geometry, device, dtype)
    if case == "SFT":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    optimizer = optimizer_of(model)
    task = build_task(model, None, packing=True)
    if chosen.compile:
        for layer in model.model.language_model.layers:
            layer.compile(dynamic=False)
    batch = batch_of(model, samples([TEXT[case]] * chosen.micro_batch, geometry.vocabulary), packing=True)
    assert batch.sequence_lengths is not None
    supervised = int((batch.labels != -100).sum())

    def step() -> None:
        task(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = alternate({case: step}, chosen.repeats)[case]
    return seconds, StepFlops(model)(batch.sequence_lengths, chosen.micro_batch, supervised)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, help="instead of 7b for stage 1 and 3b for SFT")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile for the layers of the language model")
    chosen = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and chosen.geometry is None:
        say("no GPU here: nothing measured (--geometry tiny runs anywhere)")
        return
    device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
    claims, figures = [], {}
    for case in chosen.case or CASES:
        name = chosen.geometry or CASES[case]
        seconds, flops = measure(case, GEOMETRIES[name], chosen, device, dtype)
        figures[case] = {
            "geometry": name,
            "seconds": round(seconds, 4),
            "samples_per_second": round(chosen.micro_batch / seconds, 2),
            "tflops_per_second": round(flops / seconds / 1e12, 4),
            "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if on_gpu else None,
        }
        peak = peak_flops(device, "bf16") if chosen.geometry is None else None
        if peak is not None:
            claims.append(Claim(f"MFU, {case} at {name} size", flops / seconds / peak, TARGET[case]))
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    report(claims, **figures)


if __name__ == "__main__":
    main()
