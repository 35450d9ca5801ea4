# Nonlinear mixed models by the Laplace approximation, written out here; nlmer is a check.
#
#   y_ij = f(x_ij; phi_i) + N(0, sigma^2),   phi_i = beta + b_i,   b_ik ~ N(0, sd_k^2)
#   F    = sum r^2 / (2 sigma^2) + (n / 2) log(2 pi sigma^2)
#          + sum b^2 / (2 sd^2) + sum log(2 pi sd^2) / 2
#   V    = F + (1/2) log|H| - (d / 2) log 2 pi
#
#   method "laplace"  F at its minimum in b, H its Hessian in b, beta an outer parameter (as TMB)
#   method "REML"     F at its minimum in (b, beta), H its Hessian in both (as TMB with REML = TRUE)
#   curvature         "exact", or "gauss_newton" without the second derivatives of f

# E[[c]] theta are the values of parameter c, one for each observation; theta = (beta, b by column)
nonlinear_problem <- function(y, covariates, group, curve, random) {
  names <- attr(curve, "parameters")
  n <- length(y); G <- nlevels(group)
  E <- lapply(seq_along(names), function(c) {
    M <- matrix(0, n, length(names) + G * length(random))
    M[, c] <- 1
    own <- match(names[c], random)
    if (!is.na(own)) M[cbind(seq_len(n), length(names) + G * (own - 1) + as.integer(group))] <- 1
    M
  })
  list(y = y, covariates = covariates, curve = curve, E = E, P = length(names), G = G,
       random = random)
}

curve_of <- function(expression, parameters, covariates) {
  f <- deriv3(expression, parameters, function.arg = c(parameters, covariates))
  attr(f, "parameters") <- parameters
  f
}

# F, its gradient and its Hessian in theta = (beta, b)
nonlinear_objective <- function(problem, theta, log_sd, log_sigma, curvature) {
  P <- problem$P
  values <- lapply(problem$E, function(M) drop(M %*% theta))
  f <- do.call(problem$curve, c(values, problem$covariates))
  r <- problem$y - as.vector(f)
  first <- attr(f, "gradient"); second <- attr(f, "hessian")
  precision <- exp(-2 * log_sigma)
  J <- Reduce(`+`, lapply(seq_len(P), function(c) first[, c] * problem$E[[c]]))
  H <- precision * crossprod(J)
  if (curvature == "exact") for (c in seq_len(P)) for (d in seq_len(P)) {
    H <- H - precision * crossprod(problem$E[[c]], r * second[, c, d] * problem$E[[d]])
  }
  b <- theta[-seq_len(P)]
  log_sds <- rep(log_sd, each = problem$G)
  index <- cbind(P + seq_along(b), P + seq_along(b))
  H[index] <- H[index] + exp(-2 * log_sds)
  list(value = precision * sum(r^2) / 2 + length(r) * (log(2 * pi) / 2 + log_sigma) +
         sum(b^2 * exp(-2 * log_sds)) / 2 + sum(log_sds) + length(b) * log(2 * pi) / 2,
       gradient = -precision * drop(crossprod(J, r)) + c(rep(0, P), b * exp(-2 * log_sds)),
       hessian = H, fitted = as.vector(f))
}

# minimum of F in the coordinates `free`: damped Newton steps
nonlinear_mode <- function(problem, theta, log_sd, log_sigma, free) {
  damping <- 1e-3
  for (i in 1:500) {
    at <- nonlinear_objective(problem, theta, log_sd, log_sigma, "exact")
    # far from the mode the exact Hessian may be indefinite
    if (inherits(try(chol(at$hessian[free, free]), silent = TRUE), "try-error")) {
      at <- nonlinear_objective(problem, theta, log_sd, log_sigma, "gauss_newton")
    }
    g <- at$gradient[free]
    H <- at$hessian[free, free, drop = FALSE]
    scale <- 1 / sqrt(diag(H))
    if (sqrt(sum((g * scale)^2)) < 1e-11) return(theta)
    step <- try(solve(H + damping * diag(diag(H), nrow(H)), g), silent = TRUE)
    moved <- theta
    if (!inherits(step, "try-error")) moved[free] <- theta[free] - step
    trial <- nonlinear_objective(problem, moved, log_sd, log_sigma, "gauss_newton")$value
    if (is.finite(trial) && trial <= at$value + 1e-11 * abs(at$value)) {
      theta <- moved
      damping <- damping / 10
    } else {
      damping <- max(10 * damping, 1e-10)
    }
  }
  if (sqrt(sum((g * scale)^2)) > 1e-7) stop("the mode of a nonlinear model was not found")
  theta
}

# outer = (log_sd, log_sigma) and, for method "laplace", beta
nonlinear_criterion <- function(problem, outer, start, method, curvature) {
  m <- length(problem$random)
  log_sd <- outer[seq_len(m)]; log_sigma <- outer[m + 1]
  theta <- start
  free <- seq_along(theta)
  if (method == "laplace") {
    theta[seq_len(problem$P)] <- outer[-seq_len(m + 1)]
    free <- free[-seq_len(problem$P)]
  }
  theta <- nonlinear_mode(problem, theta, log_sd, log_sigma, free)
  at <- nonlinear_objective(problem, theta, log_sd, log_sigma, curvature)
  H <- at$hessian[free, free]
  list(value = at$value + log_determinant(H) / 2 - length(free) * log(2 * pi) / 2, theta = theta,
       objective = at$value, fitted = at$fitted)
}

add_nonlinear <- function(name, problem, beta, log_sd, log_sigma, method, curvature, formula, data,
                          response, group, levels) {
  start <- c(beta, rep(0, problem$G * length(problem$random)))
  at <- function(outer) nonlinear_criterion(problem, outer, start, method, curvature)
  V <- function(outer) tryCatch(at(outer)$value, error = function(e) Inf)
  outer <- c(log_sd, log_sigma, if (method == "laplace") beta)
  scale <- c(rep(1, length(log_sd) + 1), if (method == "laplace") abs(beta))
  outer <- optim(outer, V, method = "BFGS",
                 control = list(parscale = scale, reltol = 1e-12, maxit = 500))$par
  outer <- polish(V, outer)
  agree(numDeriv::grad(V, outer) * scale, 0 * outer, paste(name, "gradient"), 1e-5)
  found <- at(outer)
  m <- length(problem$random)
  parameters <- attr(problem$curve, "parameters")
  add(name, list(
    package = "by hand", formula = formula, family = "gaussian", method = method,
    curvature = curvature, data = data, response = response, deviance = 2 * found$value,
    objective = found$objective,
    fixed = list(names = parameters, estimate = found$theta[seq_len(problem$P)]),
    random = list(list(
      group = group, columns = I(problem$random), covariance = "diagonal", levels = levels,
      sd = I(exp(outer[seq_len(m)])), correlation = rows_of(diag(m)),
      ranef = rows_of(matrix(found$theta[-seq_len(problem$P)], ncol = m)))),
    residual_sd = exp(outer[m + 1]), fitted = found$fitted))
}

add_nonlinear_models <- function() {
  trees <- transform(as.data.frame(Orange), Tree = factor(as.character(Tree)))
  logistic <- curve_of(~ Asym / (1 + exp(-(age - xmid) / scal)), c("Asym", "xmid", "scal"), "age")
  orange <- nonlinear_problem(trees$circumference, list(age = trees$age), trees$Tree, logistic,
                              "Asym")
  formula <- "circumference ~ Asym / (1 + exp(-(age - xmid) / scal)), Asym | Tree"
  for (method in c("laplace", "REML")) for (curvature in c("exact", "gauss_newton")) {
    # f is linear in b: the two curvatures differ only where beta is integrated
    if (method == "laplace" && curvature == "gauss_newton") next
    add_nonlinear(paste("orange_logistic", tolower(method), curvature, sep = "_"), orange,
                  c(192, 728, 348), log(31), log(7.8), method, curvature, formula, "orange",
                  "circumference", "Tree", levels(trees$Tree))
  }
  check_nlmer(trees, figures$orange_logistic_laplace_exact)

  doses <- transform(as.data.frame(Theoph), Subject = factor(as.character(Subject)))
  write_data(doses, "theoph")
  kinetics <- curve_of(
    ~ Dose * exp(lKe + lKa - lCl) * (exp(-exp(lKe) * Time) - exp(-exp(lKa) * Time)) /
      (exp(lKa) - exp(lKe)), c("lKe", "lKa", "lCl"), c("Dose", "Time"))
  theoph <- nonlinear_problem(doses$conc, list(Dose = doses$Dose, Time = doses$Time),
                              doses$Subject, kinetics, c("lKa", "lCl"))
  formula <- paste("conc ~ Dose exp(lKe + lKa - lCl) (exp(-exp(lKe) Time) - exp(-exp(lKa) Time))",
                   "/ (exp(lKa) - exp(lKe)), lKa + lCl | Subject (diagonal)")
  for (method in c("laplace", "REML")) for (curvature in c("exact", "gauss_newton")) {
    add_nonlinear(paste("theoph", tolower(method), curvature, sep = "_"), theoph,
                  c(-2.45, 0.47, -3.2), log(c(0.64, 0.17)), log(0.7), method, curvature, formula,
                  "theoph", "conc", "Subject", levels(doses$Subject))
  }
}

check_nlmer <- function(trees, entry) {
  # nlmer warns that its second stage does not use rhoend
  model <- suppressWarnings(nlmer(
    circumference ~ SSlogis(age, Asym, xmid, scal) ~ Asym | Tree, trees,
    start = c(Asym = 200, xmid = 725, scal = 350),
    control = nlmerControl(optCtrl = list(rhoend = 1e-8, maxfun = 1e4))))
  agree(-2 * as.numeric(logLik(model)), entry$deviance, "nlmer deviance", 1e-7)
  agree(fixef(model), entry$fixed$estimate, "nlmer fixed effects", 1e-4)
  agree(attr(VarCorr(model)$Tree, "stddev"), entry$random[[1]]$sd, "nlmer sd", 1e-4)
}
