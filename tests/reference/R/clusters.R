# Generated clusters of unequal size, one data set with a response of every family.

gamma_likelihood <- function(y) list(       # psi = log dispersion = -log shape
  loss = function(eta, psi) -dgamma(y, exp(-psi), scale = exp(eta + psi), log = TRUE),
  curvature = function(eta, psi) y * exp(-eta - psi),
  expected = function(eta, psi) rep(exp(-psi), length(y)))

negative_binomial_likelihood <- function(y) list(     # psi = log theta, the size
  loss = function(eta, psi) -dnbinom(y, size = exp(psi), mu = exp(eta), log = TRUE),
  curvature = function(eta, psi) {
    size <- exp(psi); mu <- exp(eta)
    (y + size) * size * mu / (size + mu)^2
  },
  expected = function(eta, psi) exp(psi + eta) / (exp(psi) + exp(eta)))

make_clusters <- function() {
  set.seed(20240501)
  sizes <- sample(3:9, 30, replace = TRUE)
  group <- rep(seq_along(sizes), sizes)
  n <- length(group)
  x <- round(rnorm(n), 6)
  intercept <- rnorm(30, sd = 0.6); slope <- rnorm(30, sd = 0.4)
  eta <- 0.8 + 0.5 * x + intercept[group] + slope[group] * x
  data.frame(
    group = paste0("g", formatC(group, width = 2, flag = "0")), x = x,
    count = rpois(n, exp(eta)),
    overdispersed = rnbinom(n, size = 3, mu = exp(0.8 + 0.5 * x + intercept[group])),
    positive = signif(rgamma(n, shape = 4, scale = exp(0.8 + 0.5 * x + intercept[group]) / 4), 8),
    binary = rbinom(n, 1, plogis(eta - 0.8)))
}

add_clusters <- function() {
  frame <- make_clusters()
  write_data(frame, "clusters")
  likelihood <- poisson_likelihood(frame$count)
  add_glmer("clusters_poisson_full", count ~ x + (x | group), frame, "clusters", "poisson",
            "count", "clusters", likelihood)
  add_glmer("clusters_poisson", count ~ x + (x || group), frame, "clusters", "poisson", "count",
            "clusters", likelihood)
  add_tmb("clusters_poisson", count ~ x + diag(x | group), frame, "clusters", poisson(), "count",
          "clusters", likelihood)
  likelihood <- binomial_likelihood(frame$binary, rep(1, nrow(frame)))
  add_glmer("clusters_binary", binary ~ x + (1 | group), frame, "clusters", "binomial", "binary",
            "clusters", likelihood)
  add_tmb("clusters_binary", binary ~ x + (1 | group), frame, "clusters", binomial(), "binary",
          "clusters", likelihood)
  add_tmb("clusters_gamma", positive ~ x + (1 | group), frame, "clusters", Gamma("log"),
          "positive", "clusters", gamma_likelihood(frame$positive), psi = "log_dispersion")
  add_tmb("clusters_negative_binomial", overdispersed ~ x + (1 | group), frame, "clusters",
          nbinom2(), "overdispersed", "clusters",
          negative_binomial_likelihood(frame$overdispersed), psi = "log_theta")
  add_glmer_nb(frame)
}

# lme4 has the expected curvature in its Laplace approximation. The size maximises the likelihood.
add_glmer_nb <- function(frame) {
  formula <- overdispersed ~ x + (1 | group)
  fit <- function(log_size) glmer(formula, frame, nAGQ = 1,
                                  family = MASS::negative.binomial(exp(log_size)),
                                  control = tight_glmer)
  log_size <- optimize(function(v) -as.numeric(logLik(fit(v))), c(0, 3), tol = 1e-7)$minimum
  model <- fit(log_size)
  entry <- lme4_entry(model, formula, "clusters", "negative_binomial", "laplace",
                      "overdispersed", "clusters")
  likelihood <- negative_binomial_likelihood(frame$overdispersed)
  expected <- list(loss = function(eta) likelihood$loss(eta, log_size),
                   curvature = function(eta) likelihood$expected(eta, log_size))
  check_glmer(model, entry, expected, "glmer.nb")
  entry$psi <- list(log_theta = log_size)
  entry$curvature <- "expected"
  add("clusters_negative_binomial_laplace", entry)
}
