"""What figures of generated clips beside real ones mean: the limits that the evaluation and the doctor share."""

STILL = 0.3
"""Motion energy as a share of that of real clips, below which clips hardly move."""

RESTLESS, GRAINY = 2.0, 1.5
"""Motion energy and sharpness as shares of those of real clips, beyond which clips are noisy. Motion varies more from
caption to caption, so its limit is wider."""

READS_REAL_CLIPS = 0.1
"""Share of errors in real clips beyond which a recogniser has nothing to say about generated ones."""

LEAST_RANGE = 0.3
"""Where the caption of real clips is found only so much more often than by chance, a caption more or less decides, and
generated ones cannot be judged."""

FOUND, FOUND_BY_CHANCE = 0.5, 0.1
"""Of the way from chance to real clips: half of it is no accident, and a model that ignores its text is near 0."""

HAZY = 0.6
"""Sharpness of what moves as a share of that of real clips, below which hands dissolve."""

COPIED = 0.5
"""Share of the clips that are nearer to a training clip than nearly all real ones, from which on they are copies."""


def way_to_real(share: float, ceiling: float, floor: float) -> float | None:
    """Return how far a share is on the way from chance, 0, to real clips, 1; None where the data set cannot tell."""
    return None if ceiling - floor < LEAST_RANGE else (share - floor) / (ceiling - floor)
