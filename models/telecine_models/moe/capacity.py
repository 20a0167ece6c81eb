"""How much of a mixture of experts was at work, in the units of DiffMoE (arXiv 2503.14487); needs no torch."""

from collections.abc import Sequence


def expert_capacities(tokens_per_expert: Sequence[int], num_tokens: int) -> list[float]:
    """Capacity of each expert of a layer, E K_i / num_tokens (Eq. 8): 1 is an even share, E is every token.

    Raises:
        ValueError: no experts, no tokens, or an expert with more tokens than there are.
    """
    if num_tokens < 1:
        raise ValueError(f"expert_capacities: num_tokens must be at least 1, got {num_tokens}")
    if not tokens_per_expert:
        raise ValueError("expert_capacities: tokens_per_expert must name at least one expert, got none")
    if not all(0 <= tokens <= num_tokens for tokens in tokens_per_expert):
        raise ValueError(
            f"expert_capacities: tokens_per_expert must lie between 0 and num_tokens = {num_tokens}, "
            f"got {list(tokens_per_expert)}"
        )
    return [len(tokens_per_expert) * tokens / num_tokens for tokens in tokens_per_expert]


class CapacityMeter:
    """Mean capacity over passes: 0 is no expert at work, 1 costs what a dense layer costs, E is everything."""

    def __init__(self) -> None:
        self.num_passes = 0
        self._totals: list[float] = []

    def add(self, layers: Sequence[Sequence[int]], num_tokens: int) -> None:
        """Count one pass of the model, that is one step of sampling.

        Args:
            layers: for every mixture-of-experts layer, how many tokens each of its experts processed.
            num_tokens: tokens of the pass, padding left out.

        Raises:
            ValueError: no layers or other layers than before, and what :func:`expert_capacities` refuses.
        """
        found = [sum(capacities) / len(capacities) for capacities in (expert_capacities(k, num_tokens) for k in layers)]
        if not found or (self.num_passes and len(found) != len(self._totals)):
            raise ValueError(
                f"CapacityMeter: layers must hold at least one layer, and as many each time "
                f"({len(self._totals)} before), got {len(found)}"
            )
        self._totals = [a + b for a, b in zip(self._totals or [0.0] * len(found), found, strict=True)]
        self.num_passes += 1

    @property
    def per_layer(self) -> list[float]:
        """Mean capacity of each layer.

        Raises:
            ValueError: nothing was counted.
        """
        if not self.num_passes:
            raise ValueError("CapacityMeter: there must be at least one pass to take a mean of, got none")
        return [total / self.num_passes for total in self._totals]

    @property
    def average(self) -> float:
        """Mean capacity over layers and experts (Eq. 9) and over passes: C_avg of the paper's tables."""
        return sum(self.per_layer) / len(self.per_layer)


def activated_parameters(average_capacity: float, num_experts: int, ffn: int, rest: int) -> float:
    """Parameters at work on a token, on average (Eq. 40), where every second feed-forward is a mixture.

    (1 + C) / (1 + E) of ``ffn``, all feed-forward parameters, and all of ``rest``: attention, adaLN and others. Router
    and predictor are in ``ffn`` and so count as if only a part of them worked; the paper counts that way.

    Raises:
        ValueError: a capacity outside [0, num_experts].
    """
    if not 0 <= average_capacity <= num_experts:
        raise ValueError(
            f"activated_parameters: average_capacity must lie in [0, {num_experts}], the number of experts, "
            f"got {average_capacity}"
        )
    return (1 + average_capacity) / (1 + num_experts) * ffn + rest
