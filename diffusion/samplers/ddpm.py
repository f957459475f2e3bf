"""DDPM: ancestral sampling, with fresh noise at every step."""

import math

from torch import Tensor

from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep


def ddpm(tools: SamplerTools) -> TakeStep:
    def step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
        """Draw from the posterior of Ho et al. 2020, equations 6 and 7, with beta taken over the whole stride."""
        alpha = current.alphas_cumprod / following.alphas_cumprod
        beta = 1 - alpha
        noise_power = 1 - current.alphas_cumprod
        noise_power_following = 1 - following.alphas_cumprod
        mean = (following.signal_rate * beta / noise_power) * estimate.video + (
            math.sqrt(alpha) * noise_power_following / noise_power
        ) * noisy
        deviation = math.sqrt(noise_power_following / noise_power * beta)
        return mean + deviation * tools.draw_noise(noisy)

    return step
