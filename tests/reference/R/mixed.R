# Linear and generalised linear mixed models: lme4, and TMB through glmmTMB.
#
#   lmer           the exact likelihood ("ML") or restricted likelihood ("REML")
#   glmer, nAGQ=1  Laplace in b; beta maximises the approximate likelihood ("laplace")
#   glmer, nAGQ=0  Laplace in b; beta is the joint mode of (beta, b) ("joint")
#   glmmTMB        the same as nAGQ=1 with the exact Hessian ("laplace"), or Laplace in (b, beta)
#                  with a flat prior on beta ("REML")
# Deviances are -2 log of these, with all constants.

suppressMessages({library(lme4); library(glmmTMB)})

tight_lmer <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5),
                          check.conv.singular = "ignore")
tight_glmer <- glmerControl(
  optimizer = "bobyqa", tolPwrss = 1e-14, check.conv.singular = "ignore",
  check.conv.grad = "ignore", optCtrl = list(rhobeg = 1e-3, rhoend = 1e-10, maxfun = 1e5))

# terms of the same factor, as the caller wrote them; lme4 splits (x || g) into g and g.1
random_terms <- function(components, effects, sds) {
  factors <- sub("\\.[0-9]+$", "", names(components))
  lapply(unique(factors), function(factor) {
    own <- which(factors == factor)
    columns <- unlist(lapply(components[own], rownames), use.names = FALSE)
    sd <- unlist(lapply(components[own], function(v) attr(v, "stddev")), use.names = FALSE)
    correlation <- diag(length(sd))
    if (length(own) == 1) correlation <- unname(attr(components[[own]], "correlation"))
    levels <- rownames(effects[[factor]])
    list(group = factor, columns = I(columns),
         covariance = if (length(own) == 1 && length(sd) > 1) "full" else "diagonal",
         sd = I(sd), correlation = rows_of(as.matrix(correlation)), levels = levels,
         ranef = rows_of(as.matrix(effects[[factor]])),
         ranef_sd = rows_of(sds[[factor]]))
  })
}

conditional_sds <- function(model) {
  lapply(ranef(model, condVar = TRUE), function(effect) {
    variance <- attr(effect, "postVar")
    if (is.list(variance)) {
      return(do.call(cbind, lapply(variance, function(v) sqrt(v[1, 1, ]))))
    }
    matrix(t(sqrt(apply(variance, 3, diag))), nrow = dim(variance)[3])
  })
}

lme4_entry <- function(model, formula, data, family, method, response, design, trials = NULL) {
  # a warning says that glmer's two covariances differ, which they do: README.md
  V <- suppressWarnings(as.matrix(vcov(model, use.hessian = FALSE)))
  deviance <- if (method == "REML") REMLcrit(model) else -2 * as.numeric(logLik(model))
  list(
    package = "lme4", formula = deparse1(formula), family = family, method = method,
    data = data, response = response, trials = trials, design = design, deviance = deviance,
    fixed = list(names = I(names(fixef(model))), estimate = I(unname(fixef(model))),
                 se = I(unname(sqrt(diag(V)))), covariance = rows_of(V)),
    random = random_terms(VarCorr(model), ranef(model, condVar = FALSE), conditional_sds(model)),
    residual_sd = if (family == "gaussian") sigma(model) else NULL,
    fitted = unname(fitted(model))
  )
}

# (restricted) likelihood of y ~ N(X beta, V) from the dense V, beta integrated or maximised
dense_gaussian <- function(model, REML) {
  X <- getME(model, "X"); y <- getME(model, "y"); n <- length(y)
  A <- getME(model, "Z") %*% getME(model, "Lambda")
  V <- sigma(model)^2 * (diag(n) + as.matrix(tcrossprod(A)))
  R <- chol(V)
  Xr <- backsolve(R, X, transpose = TRUE); yr <- backsolve(R, y, transpose = TRUE)
  fit <- qr(Xr)
  value <- sum(qr.resid(fit, yr)^2) + 2 * sum(log(diag(R)))
  if (!REML) return(value + n * log(2 * pi))
  value + 2 * sum(log(abs(diag(qr.R(fit))))) + (n - ncol(X)) * log(2 * pi)
}

add_lmer <- function(name, formula, frame, data, response, design, REML = TRUE) {
  model <- lmer(formula, frame, REML = REML, control = tight_lmer)
  entry <- lme4_entry(model, formula, data, "gaussian", if (REML) "REML" else "ML", response,
                      design)
  agree(dense_gaussian(model, REML), entry$deviance, name, 1e-10)
  write_matrix(getME(model, "X"), paste0(design, ".X"))
  add(name, entry)
}

# -2 log of the Laplace approximation at the modes, from dense matrices:
#   2 loss(eta) + b' Sigma^-1 b + log|Sigma| + log|H|   (- P log 2 pi where beta is integrated too),
#   H = Z'WZ + Sigma^-1, or that of (beta, b), W = curvature(eta)
dense_laplace <- function(X, Z, beta, b, Sigma, loss, curvature, integrate_beta = FALSE) {
  eta <- drop(X %*% beta + Z %*% b)
  A <- if (integrate_beta) cbind(X, Z) else Z
  H <- crossprod(A, curvature(eta) * A)
  last <- ncol(A) - ncol(Z) + seq_len(ncol(Z))
  H[last, last] <- H[last, last] + solve(Sigma)
  2 * sum(loss(eta)) + sum(b * solve(Sigma, b)) + log_determinant(Sigma) + log_determinant(H) -
    (if (integrate_beta) ncol(X) * log(2 * pi) else 0)
}

log_determinant <- function(M) as.numeric(determinant(M)$modulus)

check_glmer <- function(model, entry, likelihood, what) {
  Lambda <- as.matrix(getME(model, "Lambda"))
  by_hand <- dense_laplace(getME(model, "X"), as.matrix(getME(model, "Z")), fixef(model),
                           as.vector(getME(model, "b")), tcrossprod(Lambda), likelihood$loss,
                           likelihood$curvature)
  agree(by_hand, entry$deviance, what, 1e-8)
}

# likelihood: list(loss(eta), curvature(eta)), the observed second derivative of the loss
add_glmer <- function(name, formula, frame, data, family, response, design, likelihood,
                      trials = NULL) {
  for (method in c("laplace", "joint")) {
    model <- glmer(formula, frame, family = family, nAGQ = as.integer(method == "laplace"),
                   control = tight_glmer)
    entry <- lme4_entry(model, formula, data, family, method, response, design, trials)
    check_glmer(model, entry, likelihood, name)
    write_matrix(getME(model, "X"), paste0(design, ".X"))
    add(paste(name, method, sep = "_"), entry)
  }
}

# glmmTMB with independent random effects of one factor. Newton steps on TMB's own objective take
# its outer gradient to zero. `psi` names the family's parameter; TMB's betad is the log of the
# shape or of the size, so the log dispersion of a Gamma family is its negative.
add_tmb <- function(name, formula, frame, data, family, response, design, likelihood,
                    trials = NULL, psi = NULL) {
  label <- c(poisson = "poisson", binomial = "binomial", Gamma = "gamma",
             nbinom2 = "negative_binomial")[[if (is.list(family)) family$family else family]]
  for (method in c("laplace", "REML")) {
    model <- glmmTMB(formula, frame, family = family, REML = method == "REML")
    object <- model$obj
    outer <- model$fit$par
    for (i in 1:20) {
      step <- solve(optimHess(outer, object$fn, object$gr), drop(object$gr(outer)))
      outer <- outer - step
      if (max(abs(step)) < 1e-10) break
    }
    agree(object$gr(outer), 0 * outer, paste(name, "gradient"), 1e-6)
    value <- object$fn(outer)
    all <- object$env$last.par
    beta <- unname(all[names(all) == "beta"])
    b <- unname(all[names(all) == "b"])
    sd <- unname(exp(all[names(all) == "theta"]))
    log_psi <- unname(all[names(all) == "betad"]) * (if (label == "gamma") -1 else 1)
    X <- model.matrix(model)
    Z <- as.matrix(getME(model, "Z"))
    by_hand <- dense_laplace(X, Z, beta, b, diag(rep_len(sd^2, length(b))),
                             function(eta) likelihood$loss(eta, log_psi),
                             function(eta) likelihood$curvature(eta, log_psi), method == "REML")
    agree(by_hand, 2 * value, paste(name, method), 1e-9)
    terms <- model$modelInfo$reTrms$cond
    joint <- rbind(t(X), t(Z))
    eta <- drop(X %*% beta + Z %*% b)
    H <- joint %*% (likelihood$curvature(eta, log_psi) * t(joint))
    last <- ncol(X) + seq_along(b)
    H[last, last] <- H[last, last] + diag(rep_len(1 / sd^2, length(b)))
    V <- unname(solve(H)[seq_along(beta), seq_along(beta), drop = FALSE])
    add(paste(name, "tmb", tolower(method), sep = "_"), list(
      package = "glmmTMB", formula = deparse1(formula), family = label, method = method,
      data = data, response = response, trials = trials, design = design, deviance = 2 * value,
      psi = if (is.null(psi)) NULL else setNames(list(log_psi), psi),
      fixed = list(names = I(colnames(X)), estimate = I(beta), se = I(sqrt(diag(V))),
                   covariance = rows_of(V)),
      random = list(list(
        group = names(terms$flist)[1], columns = I(terms$cnms[[1]]), covariance = "diagonal",
        sd = I(sd), correlation = rows_of(diag(length(sd))), levels = levels(terms$flist[[1]]),
        ranef = rows_of(matrix(b, ncol = length(sd), byrow = TRUE)), ranef_sd = NULL)),
      residual_sd = NULL, fitted = NULL))
  }
}
