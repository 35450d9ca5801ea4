# Mixed models of the classical data sets of lme4 and of R's datasets.

# log-sum-exp forms, stable for any eta
softplus <- function(x) pmax(x, 0) + log1p(exp(-abs(x)))

poisson_likelihood <- function(y) list(
  loss = function(eta, psi) exp(eta) - y * eta + lgamma(y + 1),
  curvature = function(eta, psi) exp(eta))

binomial_likelihood <- function(y, trials) list(
  loss = function(eta, psi) trials * softplus(eta) - y * eta - lchoose(trials, y),
  curvature = function(eta, psi) trials * plogis(eta) * plogis(-eta))

add_classical <- function() {
  write_data(sleepstudy, "sleepstudy")
  for (REML in c(TRUE, FALSE)) {
    method <- if (REML) "reml" else "ml"
    add_lmer(paste0("sleepstudy_diagonal_", method), Reaction ~ Days + (Days || Subject),
             sleepstudy, "sleepstudy", "Reaction", "sleepstudy", REML)
    add_lmer(paste0("sleepstudy_full_", method), Reaction ~ Days + (Days | Subject), sleepstudy,
             "sleepstudy", "Reaction", "sleepstudy", REML)
  }
  write_data(Dyestuff, "dyestuff")
  add_lmer("dyestuff_reml", Yield ~ 1 + (1 | Batch), Dyestuff, "dyestuff", "Yield", "dyestuff")
  write_data(Dyestuff2, "dyestuff2")
  add_lmer("dyestuff2_reml", Yield ~ 1 + (1 | Batch), Dyestuff2, "dyestuff2", "Yield", "dyestuff2")
  write_data(Penicillin, "penicillin")
  add_lmer("penicillin_plate_reml", diameter ~ 1 + (1 | plate), Penicillin, "penicillin",
           "diameter", "penicillin")
  add_lmer("penicillin_crossed_reml", diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin,
           "penicillin", "diameter", "penicillin")
  write_data(Pastes, "pastes")
  add_lmer("pastes_sample_reml", strength ~ 1 + (1 | sample), Pastes, "pastes", "strength",
           "pastes")
  add_lmer("pastes_nested_reml", strength ~ 1 + (1 | sample) + (1 | batch), Pastes, "pastes",
           "strength", "pastes")
  trees <- transform(as.data.frame(Orange), Tree = factor(as.character(Tree)),
                     scaled_age = (age - mean(age)) / sd(age))
  write_data(trees, "orange")
  add_lmer("orange_intercept_reml", circumference ~ scaled_age + (1 | Tree), trees, "orange",
           "circumference", "orange")
  add_lmer("orange_slope_reml", circumference ~ scaled_age + (scaled_age | Tree), trees, "orange",
           "circumference", "orange")
  add_lmer("orange_diagonal_reml", circumference ~ scaled_age + (scaled_age || Tree), trees,
           "orange", "circumference", "orange")

  write_data(cbpp, "cbpp")
  likelihood <- binomial_likelihood(cbpp$incidence, cbpp$size)
  formula <- cbind(incidence, size - incidence) ~ period + (1 | herd)
  add_glmer("cbpp", formula, cbpp, "cbpp", "binomial", "incidence", "cbpp", likelihood, "size")
  add_tmb("cbpp", formula, cbpp, "cbpp", binomial(), "incidence", "cbpp", likelihood, "size")

  ticks <- grouseticks[c("TICKS", "BROOD", "LOCATION", "YEAR", "cHEIGHT")]
  write_data(ticks, "grouseticks")
  likelihood <- poisson_likelihood(ticks$TICKS)
  formula <- TICKS ~ YEAR + cHEIGHT + (1 | BROOD)
  add_glmer("grouseticks", formula, ticks, "grouseticks", "poisson", "TICKS", "grouseticks",
            likelihood)
  add_tmb("grouseticks", formula, ticks, "grouseticks", poisson(), "TICKS", "grouseticks",
          likelihood)
  add_glmer("grouseticks_nested", TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION), ticks,
            "grouseticks", "poisson", "TICKS", "grouseticks", likelihood)
}
