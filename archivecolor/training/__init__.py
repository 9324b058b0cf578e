"""The paper's adversarial training: photographs, losses, the loop, checkpoints."""
