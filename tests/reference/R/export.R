# Writing of data, matrices and figures.
#
# Every model is an entry of `figures`; data sets and matrices become CSV files. A value computed by
# hand that differs from the package's stops the script (`agree`), so that what is written has been
# checked.

figures <- list()
here <- Sys.getenv("REFERENCE_DIR", ".")

csv_path <- function(name) file.path(here, "data", paste0(name, ".csv"))

# 17 significant digits, so that the double is read back exactly
exact <- function(x) if (is.numeric(x)) formatC(x, digits = 17, format = "g", width = -1) else x

write_csv <- function(frame, name) {
  columns <- lapply(frame, function(x) exact(if (is.factor(x)) as.character(x) else x))
  write.csv(as.data.frame(columns, check.names = FALSE), csv_path(name), row.names = FALSE,
            quote = FALSE)
  name
}

# observed data are kept as R prints them (15 digits hold every measured value)
write_data <- function(frame, name) {
  columns <- lapply(frame, function(x) {
    if (is.factor(x)) as.character(x) else if (is.numeric(x)) format_number(x) else x
  })
  write.csv(as.data.frame(columns, check.names = FALSE), csv_path(name), row.names = FALSE,
            quote = FALSE)
  name
}

format_number <- function(x) vapply(x, function(v) format(v, digits = 15), "")

write_matrix <- function(X, name) {
  X <- as.matrix(X)
  if (is.null(colnames(X))) colnames(X) <- paste0("c", seq_len(ncol(X)) - 1)
  # commas inside a name would split it
  colnames(X) <- gsub(",", ";", colnames(X), fixed = TRUE)
  frame <- as.data.frame(apply(X, 2, exact, simplify = FALSE), check.names = FALSE)
  names(frame) <- colnames(X)
  write.csv(frame, csv_path(name), row.names = FALSE, quote = FALSE)
  name
}

add <- function(name, entry) {
  if (name %in% names(figures)) stop("two models are called ", name)
  figures[[name]] <<- entry
  cat(sprintf("%-36s deviance %.8f\n", name, entry$deviance))
}

# the two numbers are the same, to `tol` relative to 1 + |b|
agree <- function(a, b, what, tol = 1e-8) {
  a <- as.vector(a); b <- as.vector(b)
  gap <- max(abs(a - b) / (1 + abs(b)))
  if (!is.finite(gap) || gap > tol) {
    stop(sprintf("%s: by hand %.12g, package %.12g (relative gap %.2g)", what, a[1], b[1], gap))
  }
  invisible(gap)
}

# a matrix as an array of its rows, those of length one too
rows_of <- function(M) lapply(seq_len(nrow(M)), function(i) I(unname(M[i, ])))

write_figures <- function() {
  packages <- c("lme4", "mgcv", "glmmTMB", "TMB", "MASS")
  versions <- vapply(packages, function(p) as.character(packageVersion(p)), "")
  document <- list(
    made_with = c(list(R = paste(R.version$major, R.version$minor, sep = ".")), as.list(versions)),
    models = figures
  )
  text <- jsonlite::toJSON(document, auto_unbox = TRUE, digits = NA, pretty = 1, null = "null",
                           na = "null")
  # an array of scalars goes on one line
  flat <- gregexpr("\\[[^][{}]*\\]", text)
  regmatches(text, flat) <- lapply(regmatches(text, flat), gsub, pattern = "\\s+",
                                   replacement = " ")
  writeLines(text, file.path(here, "figures.json"))
}

# Damped Newton with numerical derivatives by Richardson extrapolation: takes an optimum that a
# package returned to where its gradient is about 1e-9.
polish <- function(f, x, steps = 6) {
  for (i in seq_len(steps)) {
    g <- numDeriv::grad(f, x)
    step <- solve(numDeriv::hessian(f, x), g)
    t <- 1
    while (t > 1e-4 && !isTRUE(f(x - t * step) <= f(x) + 1e-10 * (1 + abs(f(x))))) t <- t / 2
    x <- x - t * step
    if (max(abs(step)) < 1e-9) break
  }
  x
}
