"""VDEP's stage 1 on the same samples: the stock class in two passes, as it comes and tuned; one pass of the stock class; this
repository's interleaved schedule, its fused one, and its baseline.

As it comes: ``LlavaForConditionalGeneration`` with labels for the text loss, and again with all hidden states for the image
loss. Tuned, as somebody who knows it would: the head at supervised positions only, no head and no caption in the image pass.
One pass: both losses from one forward pass of the tuned stock class, as docs/own-model.md does it. What it says: nearly all of
the gain is one pass instead of two, which anybody can have.

The head costs 0.020 of the layers at 7B and 0.64 at this CPU's width under 32,000 words, so the claim is made where it costs
0.020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import (
    CPU,
    GEOMETRIES,
    PROMPT,
    Claim,
    Geometry,
    Timing,
    alternate,
    arguments,
    batch_of,
    build,
    build_task,
    optimizer_of,
    report,
    samples,
    stock_inputs,
)
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vdep.data.collate import Batch
from vdep.model.objective import image_losses
from vdep.study.settings import VdepSettings

BATCH, TEXT = 4, 20
ALPHA = 0.001


@dataclass
class Stock:
    """The stock class and a batch of it; each way yields (text loss, image loss)."""

    model: LlavaForConditionalGeneration
    text: Batch

    def __post_init__(self) -> None:
        self.inputs = stock_inputs(self.model, self.text)
        self.cut = int(self.text.image_mask[0].nonzero().max()) + 1
        self.keep = TEXT - PROMPT + 1

    def text_loss(self) -> Tensor:
        return self.model(**self.inputs).loss

    def image_loss(self) -> Tensor:
        outputs = self.model(**{**self.inputs, "labels": None}, output_hidden_states=True)
        return image_losses(outputs.hidden_states[-1], outputs.hidden_states[0], self.text.image_mask).mean()

    def tuned_text_loss(self) -> Tensor:
        kept = {"labels": self.inputs["labels"][:, -self.keep :], "logits_to_keep": self.keep}
        return self.model(**{**self.inputs, **kept}).loss

    def tuned_image_loss(self) -> Tensor:
        ids, mask = self.inputs["input_ids"][:, : self.cut], self.text.image_mask[:, : self.cut]
        outputs = self.model.model(input_ids=ids, pixel_values=self.inputs["pixel_values"])
        return F.mse_loss(outputs.last_hidden_state[mask].float(), outputs.image_hidden_states.detach().float())

    def one_pass(self) -> tuple[Tensor, Tensor]:
        outputs = self.model.model(input_ids=self.inputs["input_ids"], pixel_values=self.inputs["pixel_values"])
        logits = self.model.lm_head(outputs.last_hidden_state[:, -self.keep : -1]).float()
        text = F.cross_entropy(logits.flatten(0, 1), self.inputs["labels"][:, -self.keep + 1 :].flatten())
        mask = self.text.image_mask
        return text, F.mse_loss(outputs.last_hidden_state[mask].float(), outputs.image_hidden_states.detach().float())


def measure(geometry: Geometry, device: torch.device, dtype: torch.dtype, repeats: int) -> tuple[Timing, float]:
    """Seconds of each way to take a step on the same ``BATCH`` samples, and of two such batches as an epoch takes them; and
    how many tokens two passes compute for each of the fused one."""
    model = build(geometry, device, dtype)
    optimizer = optimizer_of(model)
    chosen = samples([TEXT] * BATCH, geometry.vocabulary)
    stock = Stock(model, batch_of(model, chosen))

    def two_passes(text: Callable[[], Tensor], image: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            text().backward()
            (ALPHA * image()).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def one_pass() -> None:
        text, image = stock.one_pass()
        (text + ALPHA * image).backward()
        optimizer.step()
        optimizer.zero_grad()

    # a second model: ours has no layer of the tower that nothing reads
    own = build(geometry, device, dtype)
    task, own_optimizer = build_task(own, VdepSettings(alpha=ALPHA)), optimizer_of(own)
    image, both = batch_of(own, chosen, vdep_mode=True, image_loss=True), batch_of(own, chosen, image_loss=True)
    text = batch_of(own, chosen)

    def passes(*batches: Batch, steps: int = 1) -> Callable[[], None]:
        def run() -> None:
            for number, batch in enumerate(batches, 1):
                task(batch)[0].backward()
                if number * steps % len(batches) == 0:
                    own_optimizer.step()
                    own_optimizer.zero_grad()

        return run

    parts, _ = task.losses(both)
    ours = (parts.text.item(), parts.image.item())
    ways = [(stock.text_loss(), stock.image_loss()), (stock.tuned_text_loss(), stock.tuned_image_loss()), stock.one_pass()]
    for way in ways:
        for found, expected in zip(way, ours, strict=True):
            if abs(found.item() / expected - 1) > (1e-4 if dtype == torch.float32 else 3e-2):
                raise SystemExit("the losses differ: the comparison would be of two different things")
    sides = {
        "stock, two passes": two_passes(stock.text_loss, stock.image_loss),
        "tuned stock, two passes": two_passes(stock.tuned_text_loss, stock.tuned_image_loss),
        "tuned stock, one pass": one_pass,
        "interleaved": passes(text, image),
        "fused": passes(both),
        "baseline epoch": passes(text, text),
        "fused epoch": passes(both, both, steps=2),
    }
    return alternate(sides, repeats), (text.input_ids.numel() + image.input_ids.numel()) / both.input_ids.numel()


def main() -> None:
    device, dtype, repeats = arguments(__doc__)
    geometry = GEOMETRIES["7b"] if device.type == "cuda" else CPU.like_7b()
    seconds, tokens = measure(geometry, device, dtype, repeats)
    claims = [
        Claim(
            f"tuned stock two-pass epoch : fused VDEP epoch (tokens {tokens:.2f})",
            seconds.ratio("tuned stock, two passes", "fused"),
            round(0.95 * tokens, 3),
        ),
        Claim("fused VDEP epoch : baseline epoch", seconds.ratio("fused epoch", "baseline epoch"), 1.05, at_least=False),
    ]
    figures = {f"vocabulary {geometry.vocabulary}, head : layers {geometry.head_to_layers:.3f}": over_fused(seconds)}
    if device.type != "cuda":
        wide, _ = measure(CPU, device, dtype, max(1, repeats // 3))
        figures[f"vocabulary {CPU.vocabulary}, head : layers {CPU.head_to_layers:.3f}"] = over_fused(wide)
    report(claims, seconds=seconds.rounded(), clock=seconds.by_the_clock(), **{"over fused": figures})


def over_fused(seconds: Timing) -> dict[str, float]:
    return {side: round(seconds.ratio(side, "fused"), 3) for side in seconds.turns if not side.endswith("epoch")}


if __name__ == "__main__":
    main()
