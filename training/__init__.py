"""From a config to a trained model: building the parts, the loop, checkpoints, validation and sampling."""
