# Smooths on mcycle and on a generated data set with a response of every family.

gaussian_likelihood <- function(y) list(      # psi$log_dispersion
  loss = function(eta, psi) -dnorm(y, eta, exp(psi$log_dispersion / 2), log = TRUE),
  curvature = function(eta, psi) rep(exp(-psi$log_dispersion), length(y)))

student_likelihood <- function(y) list(       # psi$log_scale, psi$log_df
  loss = function(eta, psi) {
    scale <- exp(psi$log_scale)
    log(scale) - dt((y - eta) / scale, exp(psi$log_df), log = TRUE)
  },
  curvature = function(eta, psi) {
    df <- exp(psi$log_df); a <- df * exp(2 * psi$log_scale); r <- y - eta
    (df + 1) * (a - r^2) / (a + r^2)^2
  },
  expected = function(eta, psi) {
    df <- exp(psi$log_df)
    rep((df + 1) / (df + 3) * exp(-2 * psi$log_scale), length(y))
  })

# the same likelihood with its psi by name
by_name <- function(likelihood, name) list(
  loss = function(eta, psi) likelihood$loss(eta, psi[[name]]),
  curvature = function(eta, psi) likelihood$curvature(eta, psi[[name]]),
  expected = function(eta, psi) likelihood$expected(eta, psi[[name]]))

make_smooth_data <- function() {
  set.seed(20240502)
  n <- 200
  x1 <- round(runif(n), 6); x2 <- round(runif(n), 6); x3 <- round(runif(n), 6)
  f1 <- sin(2 * pi * x1); f2 <- 0.6 * exp(2 * x2) - 1.9
  surface <- 1.5 * exp(-((x1 - 0.3)^2 + (x2 - 0.6)^2) / 0.08) + x1 * x2
  trials <- sample(1:6, n, replace = TRUE)
  frame <- data.frame(
    x1 = x1, x2 = x2, x3 = x3,
    gaussian = round(f1 + f2 + rnorm(n, sd = 0.5), 6),
    surface = round(surface + rnorm(n, sd = 0.25), 6),
    count = rpois(n, exp(0.7 + 0.8 * f1)), count2 = rpois(n, exp(0.7 + 0.8 * f1 + 0.4 * f2)),
    trials = trials, successes = rbinom(n, trials, plogis(1.2 * f1)),
    positive = signif(rgamma(n, shape = 3, scale = exp(0.5 + 0.8 * f1) / 3), 8),
    overdispersed = rnbinom(n, size = 2, mu = exp(1 + 0.8 * f1)),
    heavy = round(f1 + 0.3 * rt(n, df = 4), 6))
  # a draw in which the noise asks for no curvature at all
  set.seed(1)
  frame$line <- round(1 + x1 + rnorm(n, sd = 0.3), 6)
  frame
}

of_dispersion <- function(model, phi) list(log_dispersion = log(phi))

add_smooths <- function() {
  mcycle <- MASS::mcycle
  write_data(mcycle, "mcycle")
  parts <- add_gam(
    "mcycle_ps", accel ~ s(times, bs = "ps", m = c(2, 2), k = 20), mcycle, "mcycle", "gaussian",
    gaussian(), "accel", "mcycle_ps", gaussian_likelihood(mcycle$accel), of_dispersion, TRUE)
  # REML profile of the Gaussian dispersion
  residual <- mcycle$accel - drop(parts$X %*% parts$beta)
  S <- total_penalty(parts$penalties, parts$sp, ncol(parts$X))
  energy <- sum(residual^2) + sum(parts$beta * (S %*% parts$beta))
  free <- nrow(mcycle) - figures$mcycle_ps$null_dim
  agree(energy / free, parts$phi, "profiled dispersion", 1e-5)
  add_covariance(parts, "mcycle_ps")
  add_gam("mcycle_cr", accel ~ s(times, bs = "cr", k = 20), mcycle, "mcycle", "gaussian",
          gaussian(), "accel", "mcycle_cr", gaussian_likelihood(mcycle$accel), of_dispersion, TRUE)

  frame <- make_smooth_data()
  write_data(frame, "smooth")
  ps <- function(y) reformulate('s(x1, bs = "ps", m = c(2, 2), k = 12)', str2lang(y))
  cr <- function(y) reformulate('s(x1, bs = "cr", k = 12)', str2lang(y))
  both <- function(y) reformulate(c('s(x1, bs = "ps", m = c(2, 2), k = 12)',
                                    's(x2, bs = "cr", k = 10)'), str2lang(y))
  successes <- "cbind(successes, trials - successes)"
  count <- poisson_likelihood(frame$count)
  binomial_counts <- binomial_likelihood(frame$successes, frame$trials)
  add_gam("poisson_ps", ps("count"), frame, "smooth", "poisson", poisson(), "count", "smooth_ps",
          count)
  add_gam("poisson_cr", cr("count"), frame, "smooth", "poisson", poisson(), "count", "smooth_cr",
          count)
  add_gam("binomial_ps", ps(successes), frame, "smooth", "binomial", binomial(), "successes",
          "smooth_ps", binomial_counts, trials = "trials")
  add_gam("binomial_cr", cr(successes), frame, "smooth", "binomial", binomial(), "successes",
          "smooth_cr", binomial_counts, trials = "trials")
  add_gam("gamma_ps", ps("positive"), frame, "smooth", "gamma", Gamma("log"), "positive",
          "smooth_ps", by_name(gamma_likelihood(frame$positive), "log_dispersion"),
          of_dispersion, TRUE)
  add_gam("negative_binomial_ps", ps("overdispersed"), frame, "smooth", "negative_binomial", nb(),
          "overdispersed", "smooth_ps",
          by_name(negative_binomial_likelihood(frame$overdispersed), "log_theta"),
          function(model, phi) list(log_theta = log(model$family$getTheta(TRUE))))
  add_gam("student_ps", ps("heavy"), frame, "smooth", "student_t", scat(), "heavy", "smooth_ps",
          student_likelihood(frame$heavy), function(model, phi) {
            theta <- model$family$getTheta(TRUE)
            list(log_scale = log(theta[2]), log_df = log(theta[1]))
          })
  add_gam("gaussian_two", both("gaussian"), frame, "smooth", "gaussian", gaussian(), "gaussian",
          "smooth_two", gaussian_likelihood(frame$gaussian), of_dispersion, TRUE)
  add_gam("poisson_two", both("count2"), frame, "smooth", "poisson", poisson(), "count2",
          "smooth_two", poisson_likelihood(frame$count2))
  add_gam("gaussian_te", surface ~ te(x1, x2, k = c(5, 5)), frame, "smooth", "gaussian",
          gaussian(), "surface", "smooth_te", gaussian_likelihood(frame$surface), of_dispersion,
          TRUE)
  # data on a straight line: the strength has no finite optimum and V is flat there; tighter
  # tolerances would follow rounding errors to strengths of 1e13
  add_gam("gaussian_line", ps("line"), frame, "smooth", "gaussian", gaussian(), "line", "smooth_ps",
          gaussian_likelihood(frame$line), of_dispersion, TRUE,
          control = gam.control(), tol = 1e-6)
}
