"""Choose the shape of an atom by evidence: is it a line, a parabola or a circle?"""

import numpy as np

import reml_sae as rs
from reml_sae.manifolds import Circle, Euclidean

rng = np.random.default_rng(0)
t = rng.normal(size=200)
Z = np.column_stack([t, 0.4 * t**2, np.zeros((200, 4))]) + 0.1 * rng.normal(size=(200, 6))

for shape in (Euclidean(1, 1), Euclidean(1, 2), Euclidean(2, 1), Circle(1), Circle(2)):
    model = rs.SAEManifold(n_atoms=1, topology=shape).fit(Z)
    print(f"{shape!s:<32} V = {model.criterion_:9.2f}   explained variance {model.score(Z):.4f}")
