# Fits the reference models with R and writes figures.json, summaries.json and data/*.csv beside this
# file:
#
#   Rscript tests/reference/make_reference.R
#
# Needs R with lme4, lmerTest, glmmTMB, mgcv, MASS, numDeriv and jsonlite. README.md says what each figure is.

argument <- grep("^--file=", commandArgs(), value = TRUE)
Sys.setenv(REFERENCE_DIR = dirname(normalizePath(sub("^--file=", "", argument))))
options(warn = 1)
for (part in c("export", "mixed", "classical", "clusters", "smooths", "generated",
               "covariance", "nonlinear", "summaries")) {
  source(file.path(Sys.getenv("REFERENCE_DIR"), "R", paste0(part, ".R")))
}
dir.create(file.path(here, "data"), showWarnings = FALSE)
add_classical()
add_clusters()
add_smooths()
add_nonlinear_models()
write_figures()
write_summaries()
