"""Classifier-free guidance: two velocities mixed into one."""

from torch import Tensor

from telecine_models.sampling.ode import Denoise


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598): v = v_uncond + scale (v_cond - v_uncond).

    Scale 1 is the conditional branch itself, and costs no second evaluation. Gradients reach both branches.
    """
    if scale == 1:
        return conditional

    def guided(x: Tensor, t: Tensor) -> Tensor:
        base = unconditional(x, t)
        return base + scale * (conditional(x, t) - base)

    return guided
