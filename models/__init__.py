"""The network: a 3D UNet over video frames, told what to sign by a character-level text encoder."""
