"""From noise to data: times to visit, ODE solvers, guidance, and stochastic sampling with log-probabilities."""

from telecine_models.sampling.guidance import guide
from telecine_models.sampling.ode import EVALUATIONS_PER_STEP, Denoise, Method, sample_ode, solve_ode
from telecine_models.sampling.schedule import linear_times, shifted_times
from telecine_models.sampling.sde import Dynamics, Trajectory, Transition, sample_sde

__all__ = [
    "EVALUATIONS_PER_STEP",
    "Denoise",
    "Dynamics",
    "Method",
    "Trajectory",
    "Transition",
    "guide",
    "linear_times",
    "sample_ode",
    "sample_sde",
    "shifted_times",
    "solve_ode",
]
