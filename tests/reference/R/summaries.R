# What the summaries of lme4, lmerTest, mgcv and glmmTMB hold with their default tolerances, and
# Tweedie models whose power they estimate; writes summaries.json.

coefficient_table <- function(table, names) {
  out <- setNames(lapply(seq_along(names), function(j) I(unname(table[, j]))), names)
  c(list(names = I(rownames(table))), out)
}

summary_of_sleepstudy <- function() {
  formula <- Reaction ~ Days + (Days | Subject)
  model <- lmerTest::lmer(formula, lme4::sleepstudy)
  ml <- lme4::lmer(formula, lme4::sleepstudy, REML = FALSE)
  smaller <- lme4::lmer(Reaction ~ 1 + (Days | Subject), lme4::sleepstudy, REML = FALSE)
  test <- anova(smaller, ml)
  profile <- suppressMessages(confint(ml, method = "profile"))
  list(
    criterion = lme4::REMLcrit(model),
    fixed = coefficient_table(coef(summary(model)), c("estimate", "se", "df", "t", "p")),
    random = I(as.data.frame(lme4::VarCorr(model))$sdcor),  # sds, correlation, residual sd
    scaled_residuals = I(unname(quantile(residuals(model, scaled = TRUE)))),
    wald = rows_of(unname(confint(model, method = "Wald", parm = "beta_"))),
    ml = list(aic = AIC(ml), bic = BIC(ml), log_likelihood = as.numeric(logLik(ml)),
              profile_sd = rows_of(unname(profile[c(".sig01", ".sig03", ".sigma"), ]))),
    anova = list(chisq = test$Chisq[2], df = test$Df[2], p = test$`Pr(>Chisq)`[2]))
}

summary_of_cbpp <- function() {
  model <- lme4::glmer(cbind(incidence, size - incidence) ~ period + (1 | herd),
                       family = binomial, data = lme4::cbpp)
  tight <- update(model, control = tight_glmer)
  list(
    deviance = -2 * as.numeric(logLik(model)), aic = AIC(model), bic = BIC(model),
    fixed = coefficient_table(coef(summary(model)), c("estimate", "se", "z", "p")),
    # without the uncertainty of the variance, at the optimum
    tight = list(deviance = -2 * as.numeric(logLik(tight)), estimate = I(unname(fixef(tight))),
                 se = I(unname(sqrt(diag(as.matrix(vcov(tight, use.hessian = FALSE))))))),
    random = I(as.data.frame(lme4::VarCorr(model))$sdcor),
    scaled_residuals = I(unname(quantile(residuals(model, type = "pearson")))))
}

summary_of_mcycle <- function() {
  model <- mgcv::gam(accel ~ s(times, bs = "ps", m = c(2, 2), k = 20), data = MASS::mcycle,
                     method = "REML")
  found <- summary(model)
  list(
    reml = as.numeric(model$gcv.ubre), scale = found$scale, explained = found$dev.expl,
    fixed = coefficient_table(found$p.table, c("estimate", "se", "t", "p")),
    smooth = setNames(as.list(unname(found$s.table[1, 1:3])), c("edf", "ref_df", "statistic")))
}

# mu = exp(eta), phi = 0.8, p = 1.4
tweedie_data <- function() {
  set.seed(20240503)
  group <- rep(1:25, each = 8)
  x <- round(runif(200), 6)
  effects <- rnorm(25, sd = 0.5)
  mu <- exp(0.5 + 0.8 * sin(2 * pi * x))
  data.frame(group = paste0("g", formatC(group, width = 2, flag = "0")), x = x,
             rain = signif(mgcv::rTweedie(mu, p = 1.4, phi = 0.8), 10),
             grouped = signif(mgcv::rTweedie(exp(0.5 + x + effects[group]), 1.4, 0.8), 10))
}

tweedie_models <- function() {
  frame <- tweedie_data()
  write_data(frame, "tweedie")
  smooth <- mgcv::gam(rain ~ s(x, bs = "ps", m = c(2, 2), k = 12), data = frame,
                      family = mgcv::tw(), method = "REML", control = tight_gam)
  mixed <- glmmTMB::glmmTMB(grouped ~ x + (1 | group), frame, family = glmmTMB::tweedie())
  list(
    mgcv = list(reml = as.numeric(smooth$gcv.ubre), power = smooth$family$getTheta(TRUE),
                dispersion = smooth$reml.scale, edf = summary(smooth)$s.table[1, 1]),
    glmmTMB = list(deviance = -2 * as.numeric(logLik(mixed)),
                   power = unname(glmmTMB::family_params(mixed)), dispersion = sigma(mixed),
                   estimate = I(unname(glmmTMB::fixef(mixed)$cond)),
                   sd = attr(glmmTMB::VarCorr(mixed)$cond$group, "stddev")[[1]]))
}

write_summaries <- function() {
  found <- list(sleepstudy = summary_of_sleepstudy(), cbpp = summary_of_cbpp(),
                mcycle = summary_of_mcycle(), tweedie = tweedie_models())
  packages <- c("lme4", "lmerTest", "mgcv", "glmmTMB")
  versions <- setNames(lapply(packages, function(p) as.character(packageVersion(p))), packages)
  text <- jsonlite::toJSON(c(list(made_with = c(list(R = as.character(getRversion())), versions)),
                             found), digits = 10, auto_unbox = TRUE, pretty = TRUE)
  writeLines(text, file.path(here, "summaries.json"))
}
