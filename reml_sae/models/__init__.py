"""What the engine fits: the protocol and the SAE-manifold model."""
