# Bayesian covariance of the coefficients and its correction for the uncertainty of the strengths
# (Wood, Pya and Saefken 2016, J. Am. Stat. Assoc. 111, 1548, section 4), as mgcv computes it.
#
#   Vp = phi H^-1,   H = X'WX + S = R'R,  R upper triangular
#   Vc = Vp + J K^-1 J' + phi sum_jk [(K + I/10)^-1]_jk D_j D_k'
#
# J = d beta / d log sp, K the Hessian of the score in (log sp, log phi), of whose inverse the block
# of log sp is taken, D_j = d R^-1 / d log sp_j. The I/10 is mgcv's regularisation.

add_covariance <- function(parts, name) {
  K <- as.matrix(parts$model$outer.info$hess)
  m <- length(parts$sp)
  J <- matrix(0, length(parts$beta), m)
  R <- chol(parts$H)
  D <- list()
  for (j in seq_len(m)) {
    dS <- total_penalty(parts$penalties[j], parts$sp[j], length(parts$beta))
    J[, j] <- -solve(parts$H, dS %*% parts$beta)
    A <- backsolve(R, t(backsolve(R, dS, transpose = TRUE)), transpose = TRUE)
    A[lower.tri(A)] <- 0
    diag(A) <- diag(A) / 2
    # dR = A R, so d R^-1 = -R^-1 A
    D[[j]] <- -backsolve(R, A)
  }
  keep <- seq_len(m)
  first <- J %*% solve(K)[keep, keep, drop = FALSE] %*% t(J)
  V <- solve(K + diag(nrow(K)) / 10)[keep, keep, drop = FALSE]
  second <- 0
  for (j in keep) for (k in keep) second <- second + V[j, k] * D[[j]] %*% t(D[[k]])
  second <- parts$phi * second
  Vp <- parts$phi * solve(parts$H)
  agree(Vp, parts$model$Vp * parts$phi / parts$model$sig2, "Vp", 1e-7)
  agree(Vp + first + second, parts$model$Vc, "Vc", 1e-5)
  write_matrix(Vp, paste0(name, ".Vp"))
  write_matrix(first, paste0(name, ".Vc_first"))
  write_matrix(second, paste0(name, ".Vc_second"))
  figures[[name]]$covariance <<- list(
    Vp = paste0(name, ".Vp"), Vc_first = paste0(name, ".Vc_first"),
    Vc_second = paste0(name, ".Vc_second"), outer_hessian = rows_of(unname(K)))
}
