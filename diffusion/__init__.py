"""The mathematics of diffusion: noise schedules, parametrisations, losses, guidance and samplers.

Nothing here reads files, knows the network or draws from a global random generator. With ``x0`` a clean video and
``noise`` a standard normal draw, a noisy video is ``sqrt(alphas_cumprod) * x0 + sqrt(1 - alphas_cumprod) * noise``;
timestep 0 has the least noise and the last timestep the most.

Not here: the network (`models`) and when to sample (`sampling`, `training`).
"""
