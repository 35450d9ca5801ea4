"""Penalties from a TOML file: an annealed entropy, and roughness held back by a prior."""

import tomllib

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.datasets import planted_circles

CONFIG = """
n_atoms = 2
topology = "circle"

[[penalties]]
kind = "softmax_assignment_sparsity"
k_atoms = 2
weight_schedule = { kind = "geometric", w_start = 4.0, w_end = 1.0, rate = 0.5 }

[[penalties]]
kind = "harmonic_roughness"
period = 5

[[penalties]]
kind = "log_strength_prior"
names = ["harmonic_roughness.*"]
mean = 0.0
sd = 3.0
"""

data = planted_circles(120, 8, 2, noise_sd=0.05)
config = tomllib.loads(CONFIG)
model = rs.SAEManifold(**config).fit(data.Z)
print(f"V = {model.criterion_:.2f}   explained variance {model.score(data.Z):.4f}")
for name, strength in model.strengths_.items():
    print(f"{name:<44} {strength:.3g}")

config["penalties"][1]["period"] = 4  # an error names the place in the file
try:
    pen.from_config(config["penalties"][1], path="penalties[1]")
except rs.errors.RegistryError as error:
    print(error)
