# Generalised additive models: mgcv, method = "REML".
#
# The score is checked by hand against the full Laplace REML criterion, phi the dispersion (1 where
# the family has none), S = sum_j sp_j S_j, M_p the number of unpenalised coefficients:
#
#   V = loss(eta; phi) + beta'S beta / (2 phi) + (1/2) log|(X'WX + S) / phi|
#       - (1/2) log|S / phi|_+ - (M_p / 2) log 2 pi
#
# loss is the negative log density with all constants, W = phi times its second derivative in eta
# (`curvature`); `expected` is the expectation of that derivative where it is another one.

suppressMessages(library(mgcv))

tight_gam <- gam.control(epsilon = 1e-13, maxit = 500, mgcv.tol = 1e-12,
                         newton = list(conv.tol = 1e-12, maxNstep = 5, maxSstep = 2, maxHalf = 30,
                                       use.svd = FALSE))

# penalties in the order of sp, each with the index (from 0) of its first column
penalties_of <- function(model) {
  found <- list()
  for (smooth in model$smooth) for (j in seq_along(smooth$S)) {
    found[[length(found) + 1]] <- list(S = smooth$S[[j]], offset = smooth$first.para - 1,
                                       rank = smooth$rank[j], smooth = smooth$label)
  }
  found
}

total_penalty <- function(penalties, sp, P) {
  S <- matrix(0, P, P)
  for (j in seq_along(penalties)) {
    where <- penalties[[j]]$offset + seq_len(ncol(penalties[[j]]$S))
    S[where, where] <- S[where, where] + sp[j] * penalties[[j]]$S
  }
  S
}

# log-determinant on the range, block by block: a smooth with the identity of the range fixed by
# balanced penalties, so that strengths of any ratio keep its rank
log_pseudo_determinant <- function(penalties, sp) {
  labels <- vapply(penalties, function(p) p$smooth, "")
  total <- 0; rank <- 0
  for (label in unique(labels)) {
    own <- which(labels == label)
    balanced <- Reduce(`+`, lapply(own, function(j) penalties[[j]]$S / norm(penalties[[j]]$S)))
    e <- eigen(balanced, symmetric = TRUE)
    keep <- e$values > 1e-10 * e$values[1]
    U <- e$vectors[, keep, drop = FALSE]
    S <- Reduce(`+`, lapply(own, function(j) sp[j] * penalties[[j]]$S))
    total <- total + log_determinant(crossprod(U, S %*% U))
    rank <- rank + sum(keep)
  }
  list(value = total, rank = rank)
}

edf_of <- function(X, W, S) {
  fit <- crossprod(X, W * X)
  diag(solve(fit + S, fit))
}

# family: the contract's name; likelihood: list(loss(eta, psi), curvature(eta, psi)), all constants;
# psi: named list of log parameters, the dispersion among them
add_gam <- function(name, formula, frame, data, family, fit_family, response, design, likelihood,
                    psi = function(model, phi) NULL, has_dispersion = FALSE, trials = NULL,
                    control = tight_gam, tol = 1e-8) {
  model <- gam(formula, data = frame, family = fit_family, method = "REML", control = control)
  X <- model.matrix(model)
  penalties <- penalties_of(model)
  sp <- unname(model$sp)
  phi <- if (has_dispersion) as.numeric(model$reml.scale) else 1
  log_psi <- psi(model, phi)
  beta <- unname(coef(model))
  eta <- drop(X %*% beta)
  S <- total_penalty(penalties, sp, ncol(X))
  W <- phi * likelihood$curvature(eta, log_psi)
  H <- crossprod(X, W * X) + S
  pseudo <- log_pseudo_determinant(penalties, sp)
  null_dim <- ncol(X) - pseudo$rank
  V <- sum(likelihood$loss(eta, log_psi)) + sum(beta * (S %*% beta)) / (2 * phi) +
    (log_determinant(H) - pseudo$value - null_dim * log(2 * pi * phi)) / 2
  reml <- as.numeric(model$gcv.ubre)
  agree(V, reml, name, tol)
  agree(model$outer.info$grad, 0 * model$outer.info$grad, paste(name, "gradient"), 2e-5)
  covariance <- phi * solve(H)
  edf <- edf_of(X, W, S)
  # mgcv's edf is that of the expected weights, though its score has the observed ones
  expected <- if (is.null(likelihood$expected)) W else phi * likelihood$expected(eta, log_psi)
  edf_expected <- edf_of(X, expected, S)
  agree(edf_expected, model$edf, paste(name, "edf"), max(1e-7, tol))
  write_design(X, penalties, design)
  smooths <- lapply(model$smooth, function(smooth) {
    where <- smooth$first.para:smooth$last.para
    list(label = smooth$label, offset = smooth$first.para - 1, size = length(where),
         edf = sum(edf[where]), null_dim = smooth$null.space.dim)
  })
  add(name, list(
    package = "mgcv", formula = deparse1(formula), family = family, method = "REML", data = data,
    response = response, trials = trials, design = design, deviance = 2 * reml, reml = reml,
    psi = log_psi, dispersion = if (has_dispersion) phi else NULL, null_dim = null_dim,
    penalties = lapply(seq_along(penalties), function(j) list(
      file = paste0(design, ".S", j - 1), offset = penalties[[j]]$offset,
      size = ncol(penalties[[j]]$S), rank = penalties[[j]]$rank,
      smooth = penalties[[j]]$smooth, sp = sp[j], strength = sp[j] / phi)),
    smooths = smooths, edf = sum(edf), edf_coefficient = edf, edf_expected = sum(edf_expected),
    coefficients = beta, se_coefficient = sqrt(diag(covariance)), fitted = unname(fitted(model)),
    se_linear_predictor = sqrt(rowSums((X %*% covariance) * X))))
  invisible(list(model = model, X = X, penalties = penalties, sp = sp, phi = phi, H = H,
                 beta = beta))
}

# models of the same smooths and covariates have one design; the first of them writes it
write_design <- function(X, penalties, design) {
  if (file.exists(csv_path(paste0(design, ".X"))) && design %in% written) {
    agree(unname(as.matrix(read.csv(csv_path(paste0(design, ".X"))))), unname(X), design, 1e-12)
    return(invisible())
  }
  write_matrix(X, paste0(design, ".X"))
  for (j in seq_along(penalties)) write_matrix(penalties[[j]]$S, paste0(design, ".S", j - 1))
  written <<- c(written, design)
}
written <- character()
