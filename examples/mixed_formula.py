"""A mixed model from a formula, as one would write it for lme4 and mgcv."""

import numpy as np
import pandas as pd

from reml_sae.models import MixedModel

rng = np.random.default_rng(0)
n = 400
data = pd.DataFrame({"dose": rng.uniform(0.0, 4.0, n), "age": rng.uniform(20.0, 70.0, n),
                     "clinic": rng.choice([f"clinic {k}" for k in range(12)], n),
                     "rater": rng.choice(list("abcde"), n)})
clinics = 2.0 * rng.normal(size=12)[pd.factorize(data.clinic)[0]]
raters = 1.0 * rng.normal(size=5)[pd.factorize(data.rater)[0]]
data["score"] = (10.0 + 1.5 * data.dose + 3.0 * np.sin(data.age / 8.0) + clinics + raters
                 + rng.normal(size=n))

fit = MixedModel.from_formula(
    "score ~ dose + s(age) + (1 | clinic) + (1 | rater)", data).fit()
print(fit)
print(fit.summary())
print(fit.confint())

without = MixedModel.from_formula("score ~ s(age) + (1 | clinic) + (1 | rater)", data).fit()
print(fit.anova(without))

new = data.iloc[:3].assign(clinic="clinic 0")
print(fit.predict(new, interval="prediction").lower)
